// Package capture reads recorded traffic between a module gateway and an External
// Server: one JSON object per line with the fields t_ms (milliseconds since the
// start of the recording), topic and payload_hex. Tests replay such recordings
// against the server and the simulated gateway.
//
// testdata/gateway-session.jsonl is a recording of a real module gateway with three
// devices: connect sequence, commands, a device that joins later, and one that leaves.
//
// The package may import fleet only.
package capture

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"external-server/internal/fleet"
)

// Direction says who sent a message; it follows from the topic (CONN-1, CONN-2).
type Direction uint8

// Directions.
const (
	FromGateway  Direction = iota + 1 // <company>/<car>/module_gateway (CONN-2)
	FromServer                        // <company>/<car>/external_server (CONN-1)
	Notification                      // <company>/<car>/external_server_disconnect (CONN-3)
)

// String returns the last part of the topic.
func (d Direction) String() string {
	if topic := d.topic(); topic != "" {
		return topic[len("/"):]
	}
	return "no direction"
}

// topic returns what follows the car's name in the topic.
func (d Direction) topic() string {
	switch d {
	case FromGateway:
		return fleet.TopicFromGateway
	case FromServer:
		return fleet.TopicFromServer
	case Notification:
		return fleet.TopicDisconnect
	}
	return ""
}

// Message is one recorded message.
type Message struct {
	At        time.Duration // since the start of the recording, never decreasing
	Topic     string
	Car       fleet.CarID // from the topic
	Direction Direction   // from the topic
	Payload   []byte
}

// maxLine bounds a line of a recording, in bytes.
const maxLine = 4 << 20

// ReadFile reads the recording in the named file.
func ReadFile(path string) ([]Message, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("recorded traffic: %w", err)
	}
	defer f.Close()
	return Read(f, path)
}

// Read reads a whole recording; name appears in errors, which tell the line and
// what is wrong with it. Blank lines are skipped.
func Read(r io.Reader, name string) ([]Message, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var out []Message
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		m, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if len(out) > 0 && m.At < out[len(out)-1].At {
			return nil, fmt.Errorf("%s:%d: t_ms %d is less than %d on the line before: expected messages in the order of their time",
				name, n, m.At.Milliseconds(), out[len(out)-1].At.Milliseconds())
		}
		out = append(out, m)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s:%d: line is longer than %d bytes", name, n+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no messages: expected one JSON object per line with t_ms, topic and payload_hex", name)
	}
	return out, nil
}

// maxMillis is the largest t_ms: about ten years, far from overflow.
const maxMillis = 10 * 365 * 24 * 3600 * 1000

func parse(line []byte) (Message, error) {
	var raw struct {
		Millis  *int64  `json:"t_ms"`
		Topic   *string `json:"topic"`
		Payload *string `json:"payload_hex"`
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&raw); err != nil {
		return Message{}, fmt.Errorf("expected a JSON object with t_ms, topic and payload_hex: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Message{}, errors.New("expected one JSON object on the line, something follows it")
	}
	switch {
	case raw.Millis == nil:
		return Message{}, errors.New("t_ms is missing: expected milliseconds since the start of the recording")
	case *raw.Millis < 0 || *raw.Millis > maxMillis:
		return Message{}, fmt.Errorf("t_ms is %d: expected 0 to %d milliseconds", *raw.Millis, int64(maxMillis))
	case raw.Topic == nil:
		return Message{}, errors.New("topic is missing: expected <company>/<car>" + fleet.TopicFromGateway + " or another topic of the protocol")
	case raw.Payload == nil:
		return Message{}, errors.New("payload_hex is missing: expected the payload in hexadecimal digits, \"\" for an empty one")
	}
	m := Message{At: time.Duration(*raw.Millis) * time.Millisecond, Topic: *raw.Topic}
	var err error
	if m.Car, m.Direction, err = parseTopic(m.Topic); err != nil {
		return Message{}, err
	}
	if m.Payload, err = hex.DecodeString(*raw.Payload); err != nil {
		return Message{}, fmt.Errorf("payload_hex of topic %q: expected pairs of hexadecimal digits: %w", m.Topic, err)
	}
	return m, nil
}

func parseTopic(topic string) (fleet.CarID, Direction, error) {
	parts := strings.Split(topic, "/")
	if len(parts) == 3 && parts[0] != "" && parts[1] != "" {
		for _, d := range []Direction{FromGateway, FromServer, Notification} {
			if parts[2] == d.String() {
				return fleet.CarID{Company: parts[0], Car: parts[1]}, d, nil
			}
		}
	}
	return fleet.CarID{}, 0, fmt.Errorf("topic %q: expected <company>/<car>/ followed by %v, %v or %v", topic, FromGateway, FromServer, Notification)
}

// Client returns what the gateways sent, in order.
func Client(messages []Message) []Message { return filter(messages, FromGateway) }

// Server returns what the server sent, in order, without disconnect notifications.
func Server(messages []Message) []Message { return filter(messages, FromServer) }

func filter(messages []Message, d Direction) []Message {
	var out []Message
	for _, m := range messages {
		if m.Direction == d {
			out = append(out, m)
		}
	}
	return out
}
