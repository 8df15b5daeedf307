package vigil

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAppend: a process that is idle otherwise appends to a file a thousand times a second, beside the
// same with a vigil. What counts is the CPU time of the process, naps included, in µs.
func BenchmarkAppend(b *testing.B) {
	for _, with := range []bool{false, true} {
		name := map[bool]string{false: "ordinary", true: "vigil"}[with]
		b.Run(name, func(b *testing.B) {
			f, err := os.OpenFile(filepath.Join(b.TempDir(), "f"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			called := func() {}
			if with {
				v := New()
				defer v.Close()
				called = v.Called
			}
			record := make([]byte, 190)
			before := cpu(b)
			for b.Loop() {
				time.Sleep(time.Millisecond) // so that the process is idle: that is what is measured
				if _, err := f.Write(record); err != nil {
					b.Fatal(err)
				}
				called()
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
