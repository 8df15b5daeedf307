package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/session/record"
)

// However many records a stranger has left, they are one line, which names a topic and what to do.
func TestUnreadableRecordsAreOneLine(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var u unreadables
	u.tell(log, "c", 3)
	if out.Len() > 0 {
		t.Errorf("without a record: %s", out.String())
	}
	for n := range 2000 {
		id := fleet.CarID{Company: "acme", Car: fmt.Sprintf("evil%04d", 1999-n)}
		_, err := record.Carried(id.String(), []byte("qqq"))
		if err == nil {
			t.Fatal("garbage was read as a record")
		}
		u.add(id, err)
	}
	u.tell(log, "c", 3)
	text := out.String()
	if strings.Count(text, "\n") != 1 {
		t.Fatalf("%d lines", strings.Count(text, "\n"))
	}
	for _, want := range []string{"records=2000", "shard=3", "topic=es/c/3/cars/", "/acme/evil0000", "publishing empty retained", "begins with 113"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}
}
