package broker

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// talk sends bytes and returns what comes back until the broker closes.
func talk(t *testing.T, b *Broker, send []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(send); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		t.Fatalf("after % x the broker neither answers nor closes", send)
	}
	return answer
}

// What cannot become a CONNECT ends the connection when its first bytes have come,
// whatever it announces.
func TestFirstBytes(t *testing.T) {
	b, _ := startInside(t, Options{ConnectTimeout: time.Hour}, nil)
	for _, first := range []string{
		"\x10\x80\x80\x80\x02\x00\x04MQTT\x04\x02\x00\x1e", // 4 MiB are announced
		"\x10\x81\x80\x08",         // one byte more than 128 KiB
		"\x10\x80\x80\x80\x80\x01", // a length of five bytes
		"\x30\x0a\x00\x01a",        // PUBLISH
		"GET / HTTP/1.1\r\n\r\n",
		"\x16\x03\x01", // TLS
		"\x10\x0b",     // too short
		"\x10\x20\x00\x04MQTX",
		"\x10\x20\x00\x05",
		"\x11\x20\x00\x04MQTT\x04", // reserved bit of the header
	} {
		if answer := talk(t, b, []byte(first)); len(answer) > 0 {
			t.Errorf("%q was answered with % x", first, answer)
		}
	}
}

// A version of MQTT that the broker does not know is refused with the code that every
// version of MQTT knows.
func TestProtocolLevels(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	connect := func(name string, level byte) []byte {
		body := "\x00" + string(rune(len(name))) + name + string([]byte{level, 2, 0, 30})
		if level == 5 {
			body += "\x00" // no properties
		}
		body += "\x00\x01x"
		return append([]byte{0x10, byte(len(body))}, body+"\xe0\x00"...)
	}
	for _, tc := range []struct {
		name     string
		level    byte
		accepted bool
	}{
		{"MQTT", 4, true}, {"MQIsdp", 3, true}, {"MQTT", 0x84, true}, {"MQIsdp", 0x83, true}, {"MQTT", 5, true},
		{"MQTT", 3, false}, {"MQTT", 6, false}, {"MQTT", 0, false}, {"MQTT", 0xff, false}, {"MQTT", 0x85, false}, {"MQIsdp", 4, false}, {"MQIsdp", 0x84, false},
	} {
		answer := talk(t, b, connect(tc.name, tc.level))
		refused := bytes.Equal(answer, []byte{0x20, 2, 0, 1})
		accepted := len(answer) >= 4 && answer[0] == 0x20 && answer[3] == 0
		if accepted != tc.accepted || refused == tc.accepted {
			t.Errorf("%s with level %#x was answered with % x, accepted: %v expected", tc.name, tc.level, answer, tc.accepted)
		}
	}
	// What is malformed in MQTT 3.1.1 has no answer there.
	reserved := connect("MQTT", 4)
	reserved[9] |= 1
	if answer := talk(t, b, reserved); len(answer) > 0 {
		t.Errorf("the reserved flag was answered with % x", answer)
	}
}

// Clients that have not introduced themselves hold little memory however many they
// are, whatever they announce and as much as they send of it.
func TestMemoryBeforeIntroduction(t *testing.T) {
	many := 20_000
	if testing.Short() {
		many = 2000
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		many = min(many, int(limit.Cur)-3000) // the broker needs some, too
	}
	b, _ := startInside(t, Options{ConnectTimeout: time.Hour}, nil)
	room := b.listener.room
	room.mu.Lock()
	room.grace = time.Millisecond // otherwise the test takes as long as the clients are given
	room.mu.Unlock()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before, most := heap(), uint64(0)
	part := append([]byte("\x10\xf4\xff\x07\x00\x04MQTT\x04\x02\x00\x1e\xff\xff"), make([]byte, 50_000)...) // of 128 KiB
	for n := range many {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send := []byte{0x10}
		if n%4 == 0 {
			send = part
		}
		_, _ = c.Write(send) // the broker may have closed already
		if n%2000 == 1999 {
			most = max(most, heap())
		}
	}
	most = max(most, heap()) - before
	t.Logf("%d connections: %d MiB at most, the clients included", many, most>>20)
	if most > 100<<20 {
		t.Errorf("%d connections hold %d MiB", many, most>>20)
	}
	if n := b.unread.Load(); n > maxUnread {
		t.Errorf("%d bytes of introductions wait", n)
	}
	p := dialInside(t, b)
	if err := p.Ping(); err != nil {
		t.Error(err)
	}
}

// The library sees an introduction as it was sent, in whatever pieces it comes and
// with what follows it.
func TestIntroductionInPieces(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	long := wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "x", KeepAlive: 60, Will: &wire.Will{Topic: "a", Payload: bytes.Repeat([]byte("w"), 20_000)}})
	for _, hello := range [][]byte{wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "x", KeepAlive: 60}), long} {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		all := append(append([]byte{}, hello...), 0xc0, 0, 0xe0, 0) // PINGREQ, DISCONNECT
		for len(all) > 0 {
			n := min(len(all), 1)
			if len(hello) > 1000 {
				n = min(len(all), 700)
			}
			if _, err := c.Write(all[:n]); err != nil {
				t.Fatal(err)
			}
			all = all[n:]
		}
		if err := c.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(c)
		if want := []byte{0x20, 2, 0, 0, 0xd0, 0}; err != nil || !bytes.Equal(answer, want) {
			t.Errorf("got % x, error %v", answer, err)
		}
		c.Close()
	}
}

// A broker that closes while clients are in the middle of their handshakes: the race
// detector watches.
func TestCloseDuringHandshakes(t *testing.T) {
	certs := brokertest.NewCerts(t)
	for range 5 {
		b, _ := startInside(t, Options{TLS: certs.ServerConfig(certs.Server)}, nil)
		begun := make(chan struct{}, 20)
		for range cap(begun) {
			go func() {
				c, err := net.Dial("tcp", b.Addr().String())
				begun <- struct{}{}
				if err != nil {
					return
				}
				_ = tls.Client(c, certs.ClientConfig(&certs.Client)).Handshake() // may fail: the broker closes
				c.Close()
			}()
		}
		for range cap(begun) / 2 {
			<-begun
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		for range cap(begun) / 2 {
			<-begun
		}
	}
}

// FuzzIntroduction feeds the first bytes of a stranger in pieces. What was said about
// a part holds for the whole.
func FuzzIntroduction(f *testing.F) {
	f.Add(wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "fuzz", KeepAlive: 60}))
	f.Add([]byte("\x10\x80\x80\x80\x02\x00\x04MQTT\x84\x02\x00\x1e"))
	f.Add([]byte("\x10\x14\x00\x06MQIsdp\x83\x02\x00\x1e\x00\x00"))
	f.Add([]byte("\x10\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, input []byte) {
		whole, wrong := parseIntroduction(input)
		for n := range input {
			part, err := parseIntroduction(input[:n])
			if err != nil && wrong == nil {
				t.Fatalf("%d bytes are wrong, all are right", n)
			}
			if err == nil && wrong == nil && part.total != 0 && part.total != whole.total {
				t.Fatalf("the length is %d after %d bytes and %d after all", part.total, n, whole.total)
			}
		}
		if wrong != nil {
			return
		}
		if whole.total > maxConnect+5 || whole.level >= max(1, len(input)) {
			t.Fatalf("%+v of %d bytes", whole, len(input))
		}
		if whole.total > 0 && len(input) >= whole.total && whole.level == 0 {
			t.Fatal("a whole packet without level")
		}
	})
}
