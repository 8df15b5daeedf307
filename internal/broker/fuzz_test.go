package broker_test

import (
	"io"
	"net"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
)

// panics is a SUBSCRIBE of MQTT 5 on which the library panics.
var panics = []byte("\x82\t\x7f\xff\x00\x00\x04$\xd3\x82\n\x00\x01\x00\x80")

// FuzzListener sends whatever comes to the open port, as a stranger can, and
// then looks whether the broker still serves its clients. The input is sent
// before and after a good CONNECT, of MQTT 3.1.1 and 5. The library panics on
// some of it; that must end the client and nothing else.
func FuzzListener(f *testing.F) {
	connect := wire.AppendConnect(nil, wire.ConnectOptions{ClientID: "fuzz", KeepAlive: 60})
	connect5 := []byte{0x10, 17, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 4, 'f', 'u', 'z', '5'}
	f.Add([]byte{})
	f.Add(connect)
	f.Add(connect5)
	f.Add(wire.AppendSubscribe(nil, 1, 1, "a/+", "#"))
	f.Add(wire.AppendUnsubscribe(nil, 1, "a"))
	f.Add(wire.AppendPublish(nil, "a", []byte("x"), 1, 1, true, false))
	f.Add([]byte{0x82, 0}) // SUBSCRIBE without anything
	f.Add([]byte{0x82, 3, 0, 1, 0xff})
	f.Add([]byte{0x82, 12, 0, 1, 2, 0x0b, 0, 0, 4, '$', 's', 'h', 'a'})                    // broken properties
	f.Add([]byte{0x82, 10, 0, 1, 0, 0, 4, '$', 's', 'h', 'a', 1})                          // shared subscription without group
	f.Add([]byte{0x82, 13, 0, 1, 0, 0, 7, '$', 's', 'h', 'a', 'r', 'e', '/', 1})           // and without filter
	f.Add([]byte{0x82, 15, 0, 1, 0, 0, 9, '$', 's', 'h', 'a', 'r', 'e', '/', 'g', '/', 1}) // and an empty one
	f.Add([]byte{0x34, 6, 0, 1, 'a', 0, 1, 'x', 0x62, 2, 0, 1, 0x50, 2, 0, 1, 0x70, 2, 0, 1})
	f.Add([]byte{0xf0, 2, 0, 0, 0xe0, 0})
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})

	b, log := start(f, broker.Options{MaxPacket: 1 << 16})
	witness := dial(f, b, brokertest.PeerOptions{})
	subscribe(f, witness, "witness/only")
	f.Add(panics)
	f.Fuzz(func(t *testing.T, input []byte) {
		defer func() {
			if s := log.String(); t.Failed() {
				t.Logf("end of the log:\n%s", s[max(0, len(s)-5000):])
			}
		}()
		for _, hello := range [][]byte{nil, connect, connect5} {
			c, err := net.Dial("tcp", b.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = c.Write(append(append([]byte{}, hello...), input...))
			if err == nil { // the broker may have closed already
				err = c.(*net.TCPConn).CloseWrite()
			}
			if err == nil {
				_, err = io.Copy(io.Discard, c)
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("after %x the broker neither reads nor closes", input)
			}
			c.Close()
		}
		publish(t, witness, "witness/only", "still here")
		expect(t, witness, "witness/only", "still here")
	})
}
