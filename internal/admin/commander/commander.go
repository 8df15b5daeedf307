// Package commander gives commands of operators to the HTTP API of the server, which checks
// and stores them as it does those of its other clients.
package commander

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// apiBase is where the HTTP API is, for its transport.
const apiBase = "http://http-api/v2/protocol"

// maxAnswer bounds what is read of an answer of the HTTP API, in bytes.
const maxAnswer = 1 << 20

// Device is a device in the HTTP API's words.
type Device struct {
	Module int64  `json:"module_id"`
	Name   string `json:"name"`
	Role   string `json:"role"`
	Type   int64  `json:"type"`
}

// Message is one message of POST /command.
type Message struct {
	Device  Device  `json:"device_id"`
	Payload Payload `json:"payload"`
}

// Payload is what a Message carries. The bytes of Data reach the HTTP API unchanged.
type Payload struct {
	Data     json.RawMessage `json:"data"`
	Encoding string          `json:"encoding"`
	Type     string          `json:"message_type"`
}

// Read reads one message; encoding and message type may be left out.
func Read(body io.Reader) (m Message, err error) {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	const expected = `expected one message such as {"device_id": {"module_id": 1, "type": 1, "role": "driving", "name": "Autonomy"}, "payload": {"data": {}}}`
	if err := decoder.Decode(&m); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return m, fmt.Errorf("the body is larger than %d bytes", large.Limit)
		}
		return m, fmt.Errorf("the body cannot be read: %w; %s", err, expected)
	}
	if decoder.More() {
		return m, errors.New("there is something after the message; " + expected)
	}
	if m.Payload.Encoding == "" {
		m.Payload.Encoding = "JSON"
	}
	if m.Payload.Type == "" {
		m.Payload.Type = "COMMAND"
	}
	if len(m.Payload.Data) == 0 {
		return m, errors.New("payload.data is missing; " + expected)
	}
	return m, nil
}

// API is the HTTP API for the cars of a company.
type API struct {
	Transport http.RoundTripper
	Company   string
}

// Devices returns the devices of a car that the HTTP API takes commands for. The error is
// for people.
func (a API) Devices(ctx context.Context, car string) ([]Device, error) {
	status, raw, err := a.ask(ctx, http.MethodGet, "available-devices", car, nil)
	if err != nil {
		return nil, fmt.Errorf("the HTTP API does not answer: %w", err)
	}
	switch status {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, errors.New("the HTTP API knows no device of this car: it knows those whose module has posted a status to it")
	default:
		return nil, errors.New("the HTTP API answers: " + detail(status, raw))
	}
	var modules []struct {
		Devices []Device `json:"device_list"`
	}
	if err := json.Unmarshal(raw, &modules); err != nil {
		return nil, fmt.Errorf("the answer of the HTTP API cannot be read: %w", err)
	}
	var out []Device
	for _, m := range modules {
		out = append(out, m.Devices...)
	}
	return out, nil
}

// Refusal is why the HTTP API does not take a message.
type Refusal struct {
	Status int
	Field  string // the member that is wrong, such as device_id.role; "": none
	Detail string
}

// Error is for people.
func (r *Refusal) Error() string { return "the HTTP API refuses it: " + r.Detail }

// Send gives a message to the HTTP API and returns when it is stored. What is no *Refusal
// leaves open whether it was.
func (a API) Send(ctx context.Context, car string, m Message) error {
	body, err := json.Marshal([]Message{m})
	if err != nil {
		return &Refusal{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	status, raw, err := a.ask(ctx, http.MethodPost, "command", car, body)
	if err != nil {
		return fmt.Errorf("the HTTP API does not answer; the command may or may not have been stored: %w", err)
	}
	if status == http.StatusOK {
		return nil
	}
	r := &Refusal{Status: status, Detail: detail(status, raw)}
	// Such as "[0].device_id.role must not be empty".
	if rest, found := strings.CutPrefix(r.Detail, "[0]."); found {
		r.Field, _, _ = strings.Cut(rest, " ")
		r.Field, r.Detail = strings.TrimRight(r.Field, ":;,"), rest
	}
	return r
}

func (a API) ask(ctx context.Context, method, what, car string, body []byte) (status int, raw []byte, err error) {
	path := apiBase + "/" + what + "/" + url.PathEscape(a.Company) + "/" + url.PathEscape(car)
	r, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := a.Transport.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	raw, err = io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return answer.StatusCode, raw, err
}

// detail is what an answer other than success says.
func detail(status int, raw []byte) string {
	var p struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(raw, &p) == nil && p.Detail != "" {
		return p.Detail
	}
	return fmt.Sprintf("%d %s", status, http.StatusText(status))
}
