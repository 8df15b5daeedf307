package fence_test

import (
	"bytes"
	"testing"

	"external-server/internal/cluster/fence"
)

// FuzzEpoch: whatever is retained at the topic of an epoch, reading it neither panics nor
// gives an epoch that no server has published.
func FuzzEpoch(f *testing.F) {
	f.Add(fence.Epoch{Epoch: 12, Replica: "a", Address: "10.0.0.1:4444"}.Encode())
	f.Add([]byte(`{"epoch":1e99,"replica":"a"}`))
	f.Add([]byte(`{"epoch":0,"replica":"a"}`))
	f.Add([]byte(`{"epoch":1}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, payload []byte) {
		e, err := fence.Decode(payload)
		if err != nil {
			if e != (fence.Epoch{}) {
				t.Fatalf("%+v with %v", e, err)
			}
			return
		}
		if e.Epoch <= 0 || e.Replica == "" || len(payload) > fence.MaxEpoch {
			t.Fatalf("%+v was read", e)
		}
		again, err := fence.Decode(e.Encode())
		if err != nil || again.Epoch != e.Epoch || !bytes.Equal(again.Encode(), e.Encode()) {
			t.Fatalf("%+v became %+v: %v", e, again, err)
		}
	})
}
