package journal

import (
	"fmt"
	"testing"

	"external-server/internal/support/testwait"
)

// BenchmarkFlush measures one batch of records of 200 bytes, beside the compaction
// that it causes; it waits, unmeasured, where that cannot keep up.
func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("records=%d", n), func(b *testing.B) {
			j := open(b, options(b.TempDir()))
			records := make([][]byte, n)
			for i := range records {
				records[i] = fmt.Appendf(nil, "key%d=%0*d", i, 200-len(fmt.Sprintf("key%d=", i)), i)
			}
			b.ReportAllocs()
			for b.Loop() {
				j.Append(records...)
				if err := j.Flush(); err != nil {
					b.Fatal(err)
				}
				if j.Bytes() > 64<<20 {
					b.StopTimer()
					testwait.Until(b, "compaction", func() bool { return j.Bytes() < 16<<20 })
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
		})
	}
}

// BenchmarkFlushNothing measures a Flush with nothing to write.
func BenchmarkFlushNothing(b *testing.B) {
	j := open(b, options(b.TempDir()))
	for b.Loop() {
		if err := j.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}
