package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/wind-c/comqtt/v2/mqtt/packets"
)

const (
	// maxConnect bounds the packet with which a client introduces itself: its name,
	// will and properties are kept as long as it is connected.
	maxConnect = 128 << 10
	// firstRead is the room that every client gets for it. What is beyond comes out of
	// maxUnread, which all clients share that have not introduced themselves, and
	// grows with what has arrived, not with what was announced.
	firstRead = 1 << 10
	maxUnread = 8 << 20
)

var (
	errNoConnect   = errors.New("the first packet is not a CONNECT of MQTT")
	errLongConnect = errors.New("its introduction is too long")
	errNoRoom      = errors.New("too much is waiting of clients that have not introduced themselves")
	errManyClients = errors.New("there are too many clients")
	errGuessing    = errors.New("too many wrong passwords came from its address")
	errProtocol    = errors.New("the version of MQTT is not one of 3.1, 3.1.1 and 5.0")
)

// introduction is what the beginning of a CONNECT tells.
type introduction struct {
	total int  // bytes of the packet; 0: not known yet
	body  int  // where the name of the protocol begins, after the fixed header
	level int  // where the level of the protocol stands; 0: not known yet
	old   bool // the name is that of MQTT 3.1
}

// parseIntroduction looks at the first bytes of a connection. It fails as soon as
// they cannot become a CONNECT that the broker takes.
func parseIntroduction(b []byte) (in introduction, err error) {
	if len(b) == 0 {
		return in, nil
	}
	if b[0] != packets.Connect<<4 {
		return in, errNoConnect
	}
	remaining, header := 0, 1
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return in, errNoConnect
		}
		if header == len(b) {
			return in, nil
		}
		digit := b[header]
		header++
		remaining |= int(digit&0x7f) << shift
		if digit&0x80 == 0 {
			break
		}
	}
	switch {
	case remaining > maxConnect:
		return in, errLongConnect
	case remaining < 12: // of the shortest one, with an empty identifier
		return in, errNoConnect
	}
	in.total, in.body = header+remaining, header
	name := b[header:]
	if len(name) < 2 {
		return in, nil
	}
	want := "MQTT"
	if in.old = binary.BigEndian.Uint16(name) == uint16(len("MQIsdp")); in.old {
		want = "MQIsdp"
	}
	if int(binary.BigEndian.Uint16(name)) != len(want) {
		return in, errNoConnect
	}
	name = name[2:]
	if n := min(len(name), len(want)); string(name[:n]) != want[:n] {
		return in, errNoConnect
	}
	if len(name) > len(want) {
		in.level = in.body + 2 + len(want)
	}
	return in, nil
}

// introduce reads the CONNECT of a client and decides whether the library gets to see
// it. The library would take memory for what a client announces, and more for every
// client, before it knows any of them.
func (c *conn) introduce() error {
	in, err := c.readConnect()
	if err != nil {
		return err
	}
	level := &c.head[in.level]
	if *level == 0x83 || *level == 0x84 { // a bridge says so in the highest bit
		*level &^= 0x80
		c.bridge = true
	}
	v5 := *level == 5
	if in.old && *level != 3 || !in.old && *level != 4 && !v5 {
		return c.turnAway(false, 0x01, 0, errProtocol)
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: in.total - in.body}}
	if err := pk.ConnectDecode(bytes.Clone(c.head[in.body:in.total])); err != nil {
		return fmt.Errorf("its introduction is malformed: %w", err)
	}
	if code := pk.ConnectValidate(); code != packets.CodeSuccess && !v5 {
		return fmt.Errorf("its introduction is malformed: %w", code) // MQTT 3.1.1 knows no answer to that
	}
	return c.password(&pk, v5)
}

// readConnect reads until the whole packet is in c.head, and perhaps what follows.
func (c *conn) readConnect() (introduction, error) {
	unread := &c.broker.unread
	taken := 0
	defer func() { unread.Add(-int64(taken)) }()
	c.head = make([]byte, 0, firstRead)
	for {
		n, err := c.Conn.Read(c.head[len(c.head):cap(c.head)])
		c.head = c.head[:len(c.head)+n]
		in, wrong := parseIntroduction(c.head)
		switch {
		case wrong != nil:
			return in, wrong
		case in.total > 0 && len(c.head) >= in.total:
			return in, nil
		case err != nil:
			return in, err
		case len(c.head) < cap(c.head):
			continue
		}
		more := cap(c.head)
		if !reserveUnread(unread, more) {
			return in, errNoRoom
		}
		taken += more
		c.head = append(make([]byte, 0, len(c.head)+more), c.head...)
	}
}

// reserveUnread takes n bytes of what all clients together may have sent before the
// library sees them; false: there is not so much left.
func reserveUnread(unread *atomic.Int64, n int) bool {
	if unread.Add(int64(n)) > maxUnread {
		unread.Add(-int64(n))
		return false
	}
	return true
}

// password lets a client wait whose address has sent too many wrong ones. Whether it
// may enter is decided by OnConnectAuthenticate.
func (c *conn) password(pk *packets.Packet, v5 bool) error {
	b := c.broker
	c.ours = b.own.claim(c.RemoteAddr())
	if c.ours || len(*b.users.Load()) == 0 {
		return nil
	}
	right := func() bool { return b.allowed(pk.Connect.Username, pk.Connect.Password) }
	wait := b.throttle.try(c.RemoteAddr(), time.Now(), false, right)
	switch {
	case wait < 0:
		return c.turnAway(v5, 0x03, 0x88, errGuessing)
	case wait > 0:
		turn := time.NewTimer(wait)
		defer turn.Stop()
		select {
		case <-turn.C:
			b.throttle.try(c.RemoteAddr(), time.Now(), true, right)
		case <-c.quit:
			return errGuessing
		}
	}
	return nil
}

// turnAway answers a CONNECT with a return code of MQTT 3.1.1 or a reason code of
// MQTT 5.
func (c *conn) turnAway(v5 bool, code, reason byte, err error) error {
	answer := []byte{packets.Connack << 4, 2, 0, code}
	if v5 {
		answer = []byte{packets.Connack << 4, 3, 0, reason, 0}
	}
	if _, writing := c.Conn.Write(answer); writing != nil {
		c.broker.log.Debug("a refused client of the embedded broker did not hear why", slog.Any("error", writing))
	}
	return err
}
