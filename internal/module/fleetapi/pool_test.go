package fleetapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"external-server/internal/support/testwait"
)

// TestPoolForgetsRotatedKeys: an instance replaces the one with the key before, as a
// reload does. The pool keeps what is in use, however often keys and hosts change.
func TestPoolForgetsRotatedKeys(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, "[]")
	}))
	defer server.Close()
	pool := NewPool(nil)
	defer pool.Close()
	m, err := New(Options{Builtin: Transparent, Pool: pool})
	if err != nil {
		t.Fatal(err)
	}
	sizes := func() [3]int {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return [3]int{len(pool.clients), len(pool.hosts), len(pool.shares)}
	}
	var before *Instance
	end := func(i *Instance, stop func()) {
		stop()
		ctx, cancel := context.WithTimeout(t.Context(), testwait.Patience)
		defer cancel()
		for range 2 { // a second call has no effect
			if err := i.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	var stopBefore func()
	for n := range 20 {
		made, err := m.Open(t.Context(), spec("api_url", server.URL+"/v2/protocol", "api_key", fmt.Sprint("key-", n)))
		if err != nil {
			t.Fatal(err)
		}
		i := made.(*Instance)
		stop := i.StartCommands(nil)
		forward(t, i, "role", n, n)
		testwait.Until(t, "the status is posted", func() bool { return i.Stats().Posted == 1 })
		if before != nil {
			end(before, stopBefore)
		}
		before, stopBefore = i, stop
		if got := sizes(); got[0] != 1 || got[1] != 1 || got[2] > 1 {
			t.Fatalf("after %d keys: %d clients, %d hosts, %d shared polls; expected one of each at most", n+1, got[0], got[1], got[2])
		}
	}
	end(before, stopBefore)
	if got := sizes(); got != [3]int{} {
		t.Errorf("after the last instance: %v", got)
	}
	// One that cannot be opened leaves nothing.
	m, err = New(Options{Builtin: Transparent, Pool: pool, SpoolDirectory: filepath.Join(t.TempDir(), "missing"), DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open(t.Context(), spec("api_url", server.URL)); err == nil {
		t.Error("a spool in a folder that does not exist")
	}
	if got := sizes(); got != [3]int{} {
		t.Errorf("after one that could not be opened: %v", got)
	}
}
