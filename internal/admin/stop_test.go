package admin_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// A stop answers before it happens, with the process that ends. What cannot be read
// stops nothing.
func TestStop(t *testing.T) {
	r := newRig(t, nil, "car1")
	for _, body := range []string{`{"final": 1}`, `{"finale": true}`, `[]`, `{} {}`} {
		if a := r.operate(http.MethodPost, "/api/v1/stop", body); a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", body, a.status, a.text())
		}
	}
	if a := r.do(http.MethodPost, "/api/v1/stop", `{"final": true}`); a.status != http.StatusForbidden {
		t.Errorf("without the header that pages of other sites cannot send: %d %s", a.status, a.text())
	}
	a := r.operate(http.MethodPost, "/api/v1/stop", "")
	if a.status != http.StatusAccepted {
		t.Fatalf("%d %s", a.status, a.text())
	}
	openAPI(t).check("Stopped", decode(t, a.body))
	process := decode(t, a.body).(map[string]any)["process"].(map[string]any)
	if process["pid"] != float64(os.Getpid()) {
		t.Errorf("process %v, this is %d", process, os.Getpid())
	}
	r.wait("the server has stopped", func() bool { return strings.Contains(r.log.String(), "stopped") })
}
