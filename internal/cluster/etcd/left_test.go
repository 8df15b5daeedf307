package etcd_test

import (
	"fmt"
	"testing"

	"external-server/internal/cluster"
	"external-server/internal/support/etcdtest"
)

// TestLeftClaim: the others see that an owner has said that it serves a shard no more, also when its lease
// ends before it has given the claim up, and until there is another claim.
func TestLeftClaim(t *testing.T) {
	e := etcdtest.Start(t, etcdtest.Options{})
	a, b := run(t, options(e.URL(), "a")), run(t, options(e.URL(), "b"))
	a.member()
	b.member()
	left := func(want bool) {
		t.Helper()
		b.until(fmt.Sprintf("left: %v", want), func(st cluster.Status) bool {
			return st.Registry.Claims[1].Owner == "" && st.Registry.Claims[1].Left == want
		})
	}
	claim := a.claim(1)
	if err := a.Mark(t.Context(), 1, claim.Revision, cluster.ClaimLeft, "b"); err != nil {
		t.Fatal(err)
	}
	b.until("marked", func(st cluster.Status) bool {
		return st.Registry.Claims[1].State == cluster.ClaimLeft && st.Registry.Claims[1].To == "b"
	})
	if err := a.Release(t.Context(), 1, claim.Revision); err != nil {
		t.Fatal(err)
	}
	left(true)
	claim = b.claim(1)
	if err := b.Release(t.Context(), 1, claim.Revision); err != nil {
		t.Fatal(err)
	}
	left(false)
	claim = a.claim(1)
	if err := a.Mark(t.Context(), 1, claim.Revision, cluster.ClaimLeft, "b"); err != nil {
		t.Fatal(err)
	}
	a.stop()
	left(true)
}
