package pace

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"external-server/internal/link/mqtt/direct"
	"external-server/internal/support/testwait"
)

// traffic plays cars in virtual time against a pacer.
type traffic struct {
	p       pacer
	now     time.Time
	windows []uint32      // of the cars
	every   time.Duration // between two messages of all cars, as they come
	next    int
	pauses  int
	longest time.Duration
	brought int // by the pauses
}

func newTraffic(cars int, every time.Duration) *traffic {
	return &traffic{now: time.Unix(1, 0), windows: make([]uint32, cars), every: every}
}

// one is a message, read alone, and all that come during the pause after it. waits says that the broker sends
// none before the answer to the last one.
func (f *traffic) one(waits bool) {
	f.now = f.now.Add(f.every)
	f.hear(1)
	d := f.p.next(f.now)
	if d == 0 {
		return
	}
	f.pauses++
	f.longest = max(f.longest, d)
	f.now = f.now.Add(d)
	if n := int(d / f.every); n > 0 && !waits {
		f.brought += n
		f.hear(n)
	}
}

func (f *traffic) hear(n int) {
	for range n {
		f.p.heard(&f.windows[f.next%len(f.windows)])
		f.next++
	}
}

func (f *traffic) run(d time.Duration, waits bool) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.one(waits)
	}
}

// Few cars, however fast, and any number of slow ones are answered at once.
func TestPacerLeavesAlone(t *testing.T) {
	for name, f := range map[string]*traffic{
		"1 car in a closed loop":   newTraffic(1, 120*time.Microsecond),
		"10 cars in a closed loop": newTraffic(10, 30*time.Microsecond),
		"50 cars, 50 000/s":        newTraffic(50, 20*time.Microsecond),
		"100 cars × 1/s":           newTraffic(100, 10*time.Millisecond),
		"100 cars × 50/s":          newTraffic(100, 200*time.Microsecond),
		"5000 cars × 1/s":          newTraffic(5000, 200*time.Microsecond),
	} {
		if f.run(5*time.Second, false); f.pauses > 0 {
			t.Errorf("%s: %d pauses, up to %v", name, f.pauses, f.longest)
		}
	}
}

// Many cars that report fast share the work, and the pauses are short beside the time between two
// messages of a car.
func TestPacerPauses(t *testing.T) {
	for name, f := range map[string]*traffic{
		"100 cars, 20 000/s":     newTraffic(100, 50*time.Microsecond),
		"100 cars, 80 000/s":     newTraffic(100, 12*time.Microsecond),
		"1000 cars, 20 000/s":    newTraffic(1000, 50*time.Microsecond),
		"10 000 cars, 12 000/s":  newTraffic(10_000, 80*time.Microsecond),
		"10 000 cars, 100 000/s": newTraffic(10_000, 10*time.Microsecond),
	} {
		f.run(5*time.Second, false)
		if between := f.every * time.Duration(len(f.windows)); f.longest > between/10 || f.longest > longestPause {
			t.Errorf("%s: pauses of %v, a car sends every %v", name, f.longest, between)
		}
		if f.pauses == 0 {
			t.Errorf("%s: no pause", name)
		} else if each := float64(f.brought) / float64(f.pauses); each < leastPaused-1 || each > mostPaused {
			t.Errorf("%s: %.1f messages per pause", name, each)
		}
		before := f.pauses
		f.now = f.now.Add(time.Second) // quiet
		if f.one(false); f.pauses > before {
			t.Errorf("%s: the first message after a quiet second waits", name)
		}
	}
}

// A broker that sends the next message only after the answer is hardly held up.
func TestPacerGivesUp(t *testing.T) {
	f := newTraffic(100, 50*time.Microsecond)
	f.run(time.Minute, true)
	if f.pauses == 0 {
		t.Error("no pause was tried")
	}
	if paused := time.Duration(f.pauses) * longestPause; paused > time.Second {
		t.Errorf("up to %v of a minute were pauses that brought nothing", paused)
	}
	before := f.pauses
	f.run(2*longestBan, false)
	if f.pauses-before < 1000 {
		t.Errorf("%d pauses after they became worth it again", f.pauses-before)
	}
}

// Readers that pause leave half of the processors to others.
func TestFewReadersPause(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	p := New()
	var readers []*Reader
	rest := func() (n int) {
		for _, r := range readers {
			if r.mayRest() {
				n++
			}
		}
		return n
	}
	for range 5 {
		readers = append(readers, &Reader{pacing: p, socket: &socket{}})
	}
	if n := rest(); n != 2 {
		t.Errorf("%d of 5 readers pause on 4 processors", n)
	}
	readers[0].Stop()
	readers = append(readers[1:], readers[0])
	if n := rest(); n != 2 || readers[4].resting {
		t.Errorf("%d pause after one has stopped", n)
	}
	for _, r := range readers {
		r.Stop()
	}
	runtime.GOMAXPROCS(1)
	if n := rest(); n != 0 || p.resting.Load() != 0 {
		t.Errorf("%d pause on one processor, %d are counted", n, p.resting.Load())
	}
}

// quiet returns the reader of a socket that is kept still, and the other end.
func quiet(t *testing.T) (*Reader, *net.TCPConn) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listen.Close()
	near, err := net.Dial("tcp", listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := listen.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	r := New().Reader(direct.New(near))
	if r.socket == nil {
		t.Skip("readers do not pause on this system")
	}
	r.socket.begin()
	return r, far.(*net.TCPConn)
}

func (r *Reader) expect(t *testing.T, want string) {
	t.Helper()
	_ = r.nc.SetReadDeadline(time.Now().Add(testwait.Patience))
	b := make([]byte, 100)
	if n, err := io.ReadFull(r, b[:len(want)]); err != nil || string(b[:n]) != want {
		t.Errorf("read %q, %v; expected %q", b[:n], err, want)
	}
}

// A socket that is kept still gives what is there, however little, and what comes later wakes its
// reader.
func TestStillSocket(t *testing.T) {
	r, far := quiet(t)
	for range 3 {
		if _, err := far.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		r.expect(t, "half")
		waits := make(chan struct{})
		go func() {
			<-waits
			_, _ = far.Write([]byte("x")) // its reader misses it
		}()
		close(waits)
		r.expect(t, "x")
		r.socket.begin()
	}
}

// The end of a connection is told as ever.
func TestStillSocketEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(r *Reader, far *net.TCPConn)
		want error
	}{
		"closed there": {func(_ *Reader, far *net.TCPConn) { far.Close() }, io.EOF},
		"reset there": {func(_ *Reader, far *net.TCPConn) {
			_ = far.SetLinger(0)
			far.Close()
		}, syscall.ECONNRESET},
		"closed here": {func(r *Reader, _ *net.TCPConn) { r.nc.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			r, far := quiet(t)
			test.end(r, far)
			_ = r.nc.SetReadDeadline(time.Now().Add(testwait.Patience))
			if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, test.want) {
				t.Errorf("%d bytes, %v; expected %v", n, err, test.want)
			}
		})
	}
}

// Over TLS no reader pauses: it would get one message per pause.
func TestNoPauseOverTLS(t *testing.T) {
	r, _ := quiet(t)
	if New().Reader(tls.Client(r.nc, nil)).socket != nil {
		t.Error("the socket below TLS would be kept still")
	}
}
