package admin_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"external-server/internal/admin"
)

// stored is the HTTP API of a replica, which notes what it was given.
type stored struct{ at *some }

func (s stored) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.at.mu.Lock()
	defer s.at.mu.Unlock()
	s.at.acted = append(s.at.acted, r.Method+" "+r.URL.Path+" "+string(body))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader([]byte(`"1 message has been sent."`)))}, nil
}

func (s *some) API() http.RoundTripper                                      { return stored{s} }
func (s *some) CheckCommand(_ string, _ int32, data []byte) ([]byte, error) { return data, nil }

// A command for a car of another replica is given to the HTTP API of that replica, and the
// car's page there and here tells of it.
func TestFleetCommandsAtTheOwner(t *testing.T) {
	all, _ := newFleet(t, func(*admin.Options) {}, []string{"car4"}, []string{"car1"})
	a, b := all[0], all[1]
	if got := a.operate("POST", "/api/v1/cars/car1/commands", message(teleop, `{"go":1}`)); got.status != http.StatusAccepted {
		t.Fatalf("%d %s", got.status, got.text())
	}
	if len(a.source.acted) != 0 || len(b.source.acted) != 1 || !strings.HasPrefix(b.source.acted[0], `POST /v2/protocol/command/acme/car1 [{"device_id":{"module_id":3,"name":"Teleop","role":"teleop","type":7},"payload":{"data":{"go":1},`) {
		t.Errorf("stored at a: %q, at b: %q", a.source.acted, b.source.acted)
	}
	for _, at := range all {
		if c := at.commands("car1"); len(c) != 1 || c[0].State != "accepted" || c[0].By != "somebody at a" || c[0].Queued != nil {
			t.Errorf("replica %s tells %+v", at.name, c)
		}
	}
}
