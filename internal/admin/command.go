package admin

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
	"time"

	"external-server/internal/fleet"
	"external-server/internal/observe"
)

// noAPI is said where there is no HTTP API to send a command by.
const noAPI = "this server has no HTTP API of its own (the block http_api of the configuration); send commands where the modules of the car fetch them"

// apiBase is where the HTTP API is, for its transport.
const apiBase = "http://http-api/v2/protocol"

// maxAnswer bounds what is read of an answer of the HTTP API.
const maxAnswer = 1 << 20

// apiDevice is a device in the HTTP API's words.
type apiDevice struct {
	Module int64  `json:"module_id"`
	Name   string `json:"name"`
	Role   string `json:"role"`
	Type   int64  `json:"type"`
}

// commandTargets is the answer of GET /api/v1/cars/{car}/commands.
type commandTargets struct {
	Available bool        `json:"available"`        // commands can be sent from here
	Reason    string      `json:"reason,omitempty"` // why not
	Devices   []apiDevice `json:"devices"`          // that the HTTP API takes commands for
}

// commandable says to which devices of a car a command can be sent.
func (s *Server) commandable(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	if _, ok := s.opts.Source.Car(name); !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	out := commandTargets{Devices: []apiDevice{}}
	if s.opts.Source.API() == nil {
		out.Reason = noAPI
		answer(w, http.StatusOK, out)
		return
	}
	status, raw, err := s.askAPI(r.Context(), http.MethodGet, "available-devices", name, nil)
	var modules []struct {
		Devices []apiDevice `json:"device_list"`
	}
	switch {
	case err != nil:
		out.Reason = "the HTTP API does not answer: " + err.Error()
	case status == http.StatusNotFound:
		out.Reason = "the HTTP API knows no device of this car: it knows those whose module has posted a status to it"
	case status != http.StatusOK:
		out.Reason = "the HTTP API answers: " + detailOf(status, raw)
	case json.Unmarshal(raw, &modules) != nil:
		out.Reason = "the answer of the HTTP API cannot be read"
	default:
		for _, m := range modules {
			out.Devices = append(out.Devices, m.Devices...)
		}
		out.Available = true
	}
	answer(w, http.StatusOK, out)
}

// commandMessage is a message of POST /command as the HTTP API takes it.
type commandMessage struct {
	Device  apiDevice `json:"device_id"`
	Payload struct {
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding"`
		Type     string          `json:"message_type"`
	} `json:"payload"`
}

// sent is the answer to a command that was accepted.
type sent struct {
	done
	Order uint64 `json:"order"` // its number among the commands that operators have sent to the car
}

// sendCommand gives one message to the HTTP API, which checks and stores it as it does one
// of POST /command. What becomes of it is told with the car.
func (s *Server) sendCommand(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	c, ok := s.opts.Source.Car(name)
	if !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	if s.opts.Source.API() == nil {
		fail(w, http.StatusConflict, noAPI)
		return
	}
	m, err := readCommand(r.Body)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	delivered, err := s.opts.Source.CheckCommand(name, int32(min(max(m.Device.Module, -1), 1<<31-1)), m.Payload.Data)
	if err != nil {
		failAt(w, http.StatusUnprocessableEntity, "payload.data", err.Error())
		return
	}
	body, err := json.Marshal([]commandMessage{m})
	if err != nil {
		fail(w, http.StatusBadRequest, "the command cannot be written as JSON: "+err.Error())
		return
	}
	observed := s.opts.Hub.Car(c.ID)
	by := who(r).name
	if by == "" {
		by = "somebody on this machine"
	}
	number := observed.Expect(observe.Order{
		By: by, At: time.Now(), Data: delivered,
		Device: fleet.Device{Module: int32(m.Device.Module), Type: uint32(m.Device.Type), Role: m.Device.Role, Name: m.Device.Name},
	})
	status, raw, err := s.askAPI(r.Context(), http.MethodPost, "command", name, body)
	if err != nil {
		observed.Withdraw(number)
		fail(w, http.StatusServiceUnavailable, "the HTTP API does not answer; the command may or may not have been stored: "+err.Error())
		return
	}
	if status != http.StatusOK {
		observed.Withdraw(number)
		field, detail := fieldOf(detailOf(status, raw))
		failAt(w, status, field, "the HTTP API refuses it: "+detail)
		return
	}
	observed.Accepted(number)
	text := fmt.Sprintf("a command for module %d, role %s: %s", m.Device.Module, brief(m.Device.Role, 64), brief(string(m.Payload.Data), 200))
	s.told(r, name, text)
	answer(w, http.StatusAccepted, sent{done{"the HTTP API has accepted the command; the module fetches it"}, number})
}

// readCommand reads one message.
func readCommand(body io.Reader) (m commandMessage, err error) {
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

// askAPI makes a request to the HTTP API of this process.
func (s *Server) askAPI(ctx context.Context, method, what, car string, body []byte) (status int, raw []byte, err error) {
	path := apiBase + "/" + what + "/" + url.PathEscape(s.opts.Source.Company()) + "/" + url.PathEscape(car)
	r, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := s.opts.Source.API().RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = a.Body.Close() }()
	raw, err = io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	return a.StatusCode, raw, err
}

// fieldOf finds the member that a text of the HTTP API begins with, such as
// "[0].device_id.role must not be empty".
func fieldOf(detail string) (field, text string) {
	rest, found := strings.CutPrefix(detail, "[0].")
	if !found {
		return "", detail
	}
	field, _, _ = strings.Cut(rest, " ")
	return strings.TrimRight(field, ":;,"), rest
}

// brief is the beginning of a text.
func brief(s string, most int) string {
	if r := []rune(strings.ToValidUTF8(s, "?")); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
