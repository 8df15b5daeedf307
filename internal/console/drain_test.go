package console

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestDrain: what is left is told when it changes, until nothing is.
func TestDrain(t *testing.T) {
	left := 3
	var body bytes.Buffer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = body.ReadFrom(r.Body)
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, `{"result": "it begins"}`)
			return
		}
		list := strings.Repeat(`{"replica": "b"}, `, max(left, 0)) + `{"replica": "a"}, {}`
		left--
		fmt.Fprintf(w, `{"cluster": {"self": "a", "shards": [%s]}}`, list)
	}))
	defer server.Close()
	c, err := NewClient(server.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out, notes bytes.Buffer
	if err := c.Drain(t.Context(), "b", time.Minute, &out, &notes); err != nil {
		t.Fatal(err)
	}
	if want := "it begins\nreplica b serves no car; it can be ended\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	if want := "replica b: 3 shards left\nreplica b: 2 shards left\nreplica b: 1 shard left\n"; notes.String() != want {
		t.Errorf("%q", notes.String())
	}
	if got := strings.TrimSpace(body.String()); got != `{"replica":"b"}` {
		t.Errorf("it was asked for %s", got)
	}
	left = 1 << 10
	err = c.Drain(t.Context(), "b", time.Nanosecond, &out, &notes)
	if err == nil || !strings.Contains(err.Error(), "it goes on handing them over") {
		t.Errorf("%v", err)
	}
}
