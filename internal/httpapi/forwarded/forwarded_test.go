package forwarded

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
)

// TestBy reads requests as a server does, which brings the names into one form.
func TestBy(t *testing.T) {
	for header, want := range map[string]string{
		"x-forwarded-for: 192.0.2.1":    "the header X-Forwarded-For",
		"X-FORWARDED-PROTO: https":      "the header X-Forwarded-Proto",
		"forwarded: for=192.0.2.1":      "the header Forwarded",
		"X-Real-IP: 192.0.2.1":          "the header X-Real-Ip",
		"Via:":                          "the header Via",
		"Accept: application/json":      "",
		"X-Forwarder: 192.0.2.1":        "",
		"Referer: http://forwarded/via": "",
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: localhost\r\n" + header + "\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		if got := By(r); got != want {
			t.Errorf("%s: %q, expected %q", header, got, want)
		}
	}
	for version, want := range map[string]string{"HTTP/1.0": "HTTP/1.0", "HTTP/1.1": "", "HTTP/2.0": ""} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / " + version + "\r\nHost: localhost\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		if got := By(r); got != want {
			t.Errorf("%s: %q, expected %q", version, got, want)
		}
	}
}
