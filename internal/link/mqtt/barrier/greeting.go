package barrier

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxSelf bounds the description of a process, bytes.
const MaxSelf = 512

// Greeting is what a connection sends to itself.
type Greeting struct {
	Connection uint32 // number of the connection in its process
	Number     uint64 // of the greeting
	Token      string // of the process, without spaces
	Self       string // describes the process to people
}

// Encode returns the payload of the message.
func (g Greeting) Encode() []byte {
	return fmt.Appendf(nil, "1 %d %d %s %s", g.Connection, g.Number, g.Token, g.Self)
}

// Private tells whether the topic is that of a connection of this client, behind the prefix of such topics.
func Private(topic []byte, prefix, client string) bool {
	connection, ok := bytes.CutPrefix(topic, []byte(prefix))
	return ok && bytes.HasPrefix(connection, []byte(client+"-"))
}

// Parse reads what Encode has written, here or in another process. Not ok: a stranger has.
func Parse(payload []byte) (g Greeting, ok bool) {
	if len(payload) > MaxSelf+64 {
		return g, false
	}
	parts := strings.SplitN(string(payload), " ", 5)
	if len(parts) != 5 || parts[0] != "1" || parts[3] == "" {
		return g, false
	}
	connection, err := strconv.ParseUint(parts[1], 10, 32)
	number, err2 := strconv.ParseUint(parts[2], 10, 64)
	return Greeting{uint32(connection), number, parts[3], strings.ToValidUTF8(parts[4], "?")}, err == nil && err2 == nil
}

// rivalWithin is the time in which a second take-over makes the link give way.
const rivalWithin = 60 * time.Second

// Rival is the process met last that uses the same client identifier; the zero value: none.
type Rival struct {
	token      string
	connection uint32    // its last one that was met
	at         time.Time // when
}

// Meet counts the take-overs by another process; what is met on the first connection is of the
// process before this one. Each connection of the other counts once, however often the session
// brings what it has said. again: it was the second within a minute.
func (r *Rival) Meet(g Greeting, now time.Time, first bool) (takenOver, again bool) {
	if r.token == g.Token && g.Connection <= r.connection {
		return false, false
	}
	old := r.at
	*r = Rival{g.Token, g.Connection, now}
	if first {
		r.at = time.Time{}
		return false, false
	}
	return true, !old.IsZero() && now.Sub(old) < rivalWithin
}
