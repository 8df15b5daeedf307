package fence_test

import (
	"strings"
	"testing"

	"external-server/internal/cluster/fence"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A replica loses its connection and its claim, another one serves, and the first claims
// again before it has noticed: its claim is the highest, its sessions are outdated.
func TestClaimedAgainAfterAnother(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitUp(1)
	a.standing.Claim(14)
	seize(t, brokerAt(address, "b"), 12)
	a.waitFenced()
	if !strings.Contains(a.err.Error(), `"b" with epoch 12`) {
		t.Errorf("the reason does not name the owner between: %v", a.err)
	}
}

// A replica claims again and again while it serves, and comes back after each loss of the
// connection, whether the broker has heard of the last claim or not.
func TestClaimedAgainInPeace(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	a := serve(t, brokerAt(address, "a"), 11, nil)
	a.waitUp(1)
	for n, epoch := range []int64{12, 13, 14} {
		a.standing.Claim(epoch)
		if n < 2 {
			a.link.Announce()
			testwait.Until(t, "the broker has the epoch", func() bool {
				e, _, err := fence.Read(t.Context(), a.broker, cluster, shard())
				return err == nil && e.Epoch == epoch
			})
		}
		stranger(t, address)
		a.waitUp(n + 2)
	}
}
