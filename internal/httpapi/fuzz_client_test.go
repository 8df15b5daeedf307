package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// answering is a server without network.
type answering func(*http.Request) *http.Response

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

// FuzzClientAnswer gives the client any answer.
func FuzzClientAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(`[{"device_id":{"module_id":1,"type":1,"role":"r","name":"n"},"payload":{"message_type":"COMMAND","encoding":"JSON","data":{}}}]`))
	f.Add(200, "application/json", []byte(`[{"timestamp":1e3}]`))
	f.Add(404, "application/json", []byte("[]"))
	f.Add(500, "text/html", []byte("<html>"))
	f.Add(400, "application/problem+json", []byte(`{"title":1,"detail":[]}`))
	f.Fuzz(func(t *testing.T, code int, contentType string, body []byte) {
		if code < 200 || code > 599 || strings.ContainsAny(contentType, "\r\n\x00") {
			return
		}
		c := newTestClient(t, ClientOptions{URL: "http://x", Transport: answering(func(r *http.Request) *http.Response {
			return &http.Response{
				StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r,
			}
		})})
		messages, err := c.Commands(context.Background(), car1, Query{})
		if err == nil && (code >= 300 || !json.Valid(body)) {
			t.Fatalf("%d %q became %v", code, body, messages)
		}
		if code >= 300 && StatusOf(err) != code {
			t.Fatalf("%d became %v", code, err)
		}
	})
}
