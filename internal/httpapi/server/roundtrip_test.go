package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestRoundTripperStreamsAndCancels uses handlers that a client cannot have seen
// to their end.
func TestRoundTripperStreamsAndCancels(t *testing.T) {
	ended := make(chan error, 1)
	transport := handlerTransport{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Test", "yes")
		_, _ = io.WriteString(w, "first ")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		<-r.Context().Done()
		ended <- r.Context().Err()
	})}
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "POST", "http://x/y?z", strings.NewReader("second"))
	response, err := transport.RoundTrip(r)
	if err != nil || response.StatusCode != 200 || response.Header.Get("X-Test") != "yes" {
		t.Fatalf("%v %v", response, err)
	}
	buffer := make([]byte, len("first second"))
	if _, err := io.ReadFull(response.Body, buffer); err != nil || string(buffer) != "first second" {
		t.Errorf("%q %v", buffer, err) // arrives although the handler has not ended
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = response.Body.Close()

	block := handlerTransport{http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	r, _ = http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
	if _, err := block.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before an answer: %v", err)
	}
	broken := handlerTransport{http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })}
	r, _ = http.NewRequest("GET", "http://x/", nil)
	if _, err := broken.RoundTrip(r); err == nil {
		t.Error("a handler that panics answered")
	}
	empty := handlerTransport{http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	response, err = empty.RoundTrip(r)
	if err != nil || response.StatusCode != 200 {
		t.Errorf("empty: %v %v", response, err)
	} else if body, err := io.ReadAll(response.Body); err != nil || len(body) != 0 {
		t.Errorf("empty: %q %v", body, err)
	}
}
