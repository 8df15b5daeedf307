package direct

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// BenchmarkAlone: a process that was idle gets a message and answers it, a thousand times a second, beside the
// same with an ordinary connection. What counts is the CPU time of the process, in µs.
func BenchmarkAlone(b *testing.B) {
	for name, wrap := range map[string]func(net.Conn) net.Conn{"direct": New, "ordinary": func(nc net.Conn) net.Conn { return nc }} {
		b.Run(name, func(b *testing.B) {
			near, far := tcp(b)
			server := wrap(near)
			done := make(chan struct{})
			go func() {
				defer close(done)
				m := make([]byte, 64)
				for {
					n, err := server.Read(m)
					if err != nil {
						return
					}
					if _, err := server.Write(m[:n]); err != nil {
						return
					}
				}
			}()
			client := New(far) // makes no ordinary call in either case
			m := make([]byte, 64)
			before := cpu(b)
			for b.Loop() {
				time.Sleep(time.Millisecond) // so that the process is idle: that is what is measured
				if _, err := client.Write(m); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
			far.Close()
			<-done
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
