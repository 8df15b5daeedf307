package reason

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What operators are told names what to check, and keeps the cause.
func TestExplain(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: 40123}, Err: syscall.ECONNRESET}
	for _, c := range []struct {
		err  error
		want string
	}{
		{Refused(4), "check user name and password"},
		{Refused5{Code: 0x86}, "check user name and password"},
		{Refused5{Code: 0x87, Reason: "no"}, `(it says "no")`},
		{Refused5{Code: 1}, "refuses MQTT 3.1.1"},
		{Disconnected{Code: 0x8e}, "another client with the same client identifier"},
		{Handshake{io.EOF}, "check whether the port expects TLS"},
		{NoAnswer{Err: io.EOF}, "check whether the port expects TLS"},
		{NoAnswer{Err: io.EOF, TLS: true}, "check certificate and key files"},
		{NoAnswer{Err: os.ErrDeadlineExceeded}, "check host and port"},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), "no connection within 5s: check host, port and firewall"},
		{io.ErrUnexpectedEOF, "the broker closed the connection"},
		{WithoutAddresses(reset), "the broker closed the connection"},
	} {
		got := Explain(c.err, 5*time.Second)
		if !strings.Contains(got.Error(), c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v became %q, want %q and the cause", c.err, got, c.want)
		}
	}
	if text := WithoutAddresses(reset).Error(); strings.Contains(text, "40123") {
		t.Errorf("a port that is another one each time: %s", text)
	}
	if !(Refused5{Code: 0x84}).Version() || (Refused5{Code: 0x87}).Version() {
		t.Error("which refusals are about the version")
	}
	for code := range 0x100 {
		if text := Text(byte(code), "x"); !strings.HasSuffix(text, `(it says "x")`) || len(text) < 20 {
			t.Errorf("code %#x: %q", code, text)
		}
	}
}
