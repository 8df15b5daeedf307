package e2e

import (
	"strings"
	"testing"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
)

// One of two replicas is drained from the other one, by an operator: no car notices, and
// it serves none until it is started anew. Then it gets its share again.
func TestDrainCommand(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 20)
	f.start(0, 1)
	f.spread(32, 0, 1)
	f.drive()
	f.seen(0)
	drain := func(args ...string) (string, string, int) {
		return servertest.Run(t, t.TempDir(), append([]string{"drain", "--admin", "http://" + f.admins[0]}, args...)...)
	}
	f.step("a replica is drained", func() {
		out, notes, code := drain("r1")
		if code != 0 || !strings.Contains(out, "replica r1 gives its cars to the others") || !strings.Contains(out, "replica r1 serves no car; it can be ended") {
			t.Errorf("%d\n%s\n%s", code, out, notes)
		}
	})
	if got := get(t, "http://"+f.admins[1]+"/readyz"); !strings.Contains(got, "draining") {
		t.Errorf("the drained replica says %s", got)
	}
	if out, notes, code := drain("r7"); code == 0 || !strings.Contains(notes, `no replica "r7" is a member of the cluster; members are r0, r1`) {
		t.Errorf("%d\n%s\n%s", code, out, notes)
	}
	f.step("the drained replica is stopped", func() {
		if code := f.replicas[1].Stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	f.start(1)
	f.step("it is back", func() {
		testwait.Until(t, "it has cars again", func() bool { return f.said(1, "serving a shard") > 0 })
	})
}
