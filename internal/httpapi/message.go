package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"external-server/internal/fleet"
)

// maxDepth bounds the nesting of posted JSON: readers in other languages parse
// recursively.
const maxDepth = 128

// maxMessages bounds one POST, so that one request cannot hold up the writer.
const maxMessages = 10_000

// checkName decides about company and car names (HTTP-3) and roles.
func checkName(s string) bool { return fleet.ValidName(s) }

// CheckCar decides about the names of a car (HTTP-3). Its errors are *Error 400.
func CheckCar(car fleet.CarID) error {
	if !checkName(car.Company) {
		return NewError(http.StatusBadRequest, "the company name %s does not match ^[0-9a-z_]+$", Quote(car.Company))
	}
	if !checkName(car.Car) {
		return NewError(http.StatusBadRequest, "the car name %s does not match ^[0-9a-z_]+$", Quote(car.Car))
	}
	return nil
}

// Quote shortens what a stranger sent before it is repeated.
func Quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return strconv.Quote(s)
}

// CheckMessages validates messages that came as Go values, the same way as
// DecodeMessages does with JSON. It compacts their data.
func CheckMessages(k Kind, messages []Message) error {
	if len(messages) > maxMessages {
		return NewError(http.StatusBadRequest, "%d messages in one request; at most %d are accepted", len(messages), maxMessages)
	}
	for i := range messages {
		if err := checkMessage(k, &messages[i]); err != nil {
			return NewError(http.StatusBadRequest, "[%d].%s", i, err.Error())
		}
	}
	return nil
}

func checkMessage(k Kind, m *Message) error {
	switch {
	case m.DeviceID.ModuleID < 0:
		return fmt.Errorf("device_id.module_id is %d; expected an integer of 0 or more", m.DeviceID.ModuleID)
	case m.DeviceID.Type < 0:
		return fmt.Errorf("device_id.type is %d; expected an integer of 0 or more", m.DeviceID.Type)
	case !checkName(m.DeviceID.Role):
		return fmt.Errorf("device_id.role is %s; expected a string that matches ^[a-z0-9_]+$", Quote(m.DeviceID.Role))
	case !utf8.ValidString(m.DeviceID.Name) || strings.ContainsRune(m.DeviceID.Name, 0):
		// PostgreSQL stores no NUL; refusing it everywhere keeps the stores alike.
		return errors.New("device_id.name must be UTF-8 without NUL characters")
	}
	switch m.Payload.Encoding {
	case EncodingJSON, EncodingBase64:
	default:
		return fmt.Errorf("payload.encoding is %s; expected \"JSON\" or \"BASE64\"", Quote(m.Payload.Encoding))
	}
	switch t := m.Payload.MessageType; {
	case k == KindCommand && t == TypeCommand, k == KindStatus && (t == TypeStatus || t == TypeStatusError):
	case t != TypeCommand && t != TypeStatus && t != TypeStatusError:
		return fmt.Errorf("payload.message_type is %s; expected \"STATUS\", \"STATUS_ERROR\" or \"COMMAND\"", Quote(t))
	case k == KindCommand:
		return fmt.Errorf("payload.message_type is %q; /command takes \"COMMAND\" only (statuses go to /status)", t)
	default:
		return fmt.Errorf("payload.message_type is %q; /status takes \"STATUS\" and \"STATUS_ERROR\" only (commands go to /command)", t)
	}
	data, err := checkData(m.Payload.Data)
	if err != nil {
		return fmt.Errorf("payload.data %w", err)
	}
	m.Payload.Data = data
	return nil
}

// checkData accepts an object, an array or a string (MM-2) and returns it in
// compact form.
func checkData(data json.RawMessage) (json.RawMessage, error) {
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) == 0 {
		return nil, errors.New("is missing")
	}
	switch trimmed[0] {
	case '{', '[', '"':
	default:
		return nil, errors.New("must be an object, an array or a string")
	}
	if !utf8.Valid(trimmed) {
		return nil, errors.New("is not UTF-8")
	}
	if depth(trimmed) > maxDepth {
		return nil, fmt.Errorf("is nested deeper than %d levels", maxDepth)
	}
	var out bytes.Buffer
	out.Grow(len(trimmed))
	if err := json.Compact(&out, trimmed); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if err := checkText(out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// depth returns the deepest nesting of objects and arrays in a JSON text.
func depth(text []byte) int {
	deepest, level, inString := 0, 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// DecodeMessages reads the body of a POST: exactly one JSON array of messages.
// Errors are *Error 400 and name the member, such as [0].device_id.role. Unknown
// members are ignored; member names are exact.
func DecodeMessages(k Kind, body []byte) ([]Message, error) {
	bad := func(format string, args ...any) error {
		return NewError(http.StatusBadRequest, format, args...)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, bad("the body is empty; expected a JSON array of messages")
	}
	if !utf8.Valid(body) {
		return nil, bad("the body is not UTF-8; expected a JSON array of messages")
	}
	if depth(body) > maxDepth+3 { // array, message, payload
		return nil, bad("the body is nested deeper than %d levels", maxDepth+3)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	var items []json.RawMessage
	if err := decoder.Decode(&items); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, bad("the body is a JSON %s; expected an array of messages", wrong.Value)
		}
		return nil, bad("the body is not JSON: %s", describeJSONError(err))
	}
	if items == nil {
		return nil, bad("the body is null; expected an array of messages")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, bad("there is something after the JSON array at byte %d", decoder.InputOffset())
	}
	if len(items) > maxMessages {
		return nil, bad("%d messages in one request; at most %d are accepted", len(items), maxMessages)
	}
	messages := make([]Message, len(items))
	for i, item := range items {
		err := decodeMessage(item, &messages[i])
		if err == nil {
			err = checkMessage(k, &messages[i])
		}
		if err != nil {
			return nil, bad("[%d].%s", i, err.Error())
		}
	}
	return messages, nil
}

func describeJSONError(err error) string {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s at byte %d", syntax.Error(), syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	return err.Error()
}

func decodeMessage(item json.RawMessage, m *Message) error {
	members, err := object("", item)
	if err != nil {
		return err
	}
	device, err := objectMember("", "device_id", members)
	if err != nil {
		return err
	}
	payload, err := objectMember("", "payload", members)
	if err != nil {
		return err
	}
	if _, ok := members["timestamp"]; ok {
		// Its value is ignored (HTTP-10) but it must be what the contract says.
		if err := member("", "timestamp", members, &m.Timestamp, "an integer"); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		of     map[string]json.RawMessage
		parent string
		name   string
		into   any
		what   string
	}{
		{device, "device_id.", "module_id", &m.DeviceID.ModuleID, "an integer of 0 or more"},
		{device, "device_id.", "type", &m.DeviceID.Type, "an integer of 0 or more"},
		{device, "device_id.", "role", &m.DeviceID.Role, "a string that matches ^[a-z0-9_]+$"},
		{device, "device_id.", "name", &m.DeviceID.Name, "a string"},
		{payload, "payload.", "message_type", &m.Payload.MessageType, `"STATUS", "STATUS_ERROR" or "COMMAND"`},
		{payload, "payload.", "encoding", &m.Payload.Encoding, `"JSON" or "BASE64"`},
	} {
		if err := member(f.parent, f.name, f.of, f.into, f.what); err != nil {
			return err
		}
	}
	if err := checkText(device["name"]); err != nil {
		return fmt.Errorf("device_id.name %w", err)
	}
	m.Payload.Data = payload["data"]
	return nil
}

func object(name string, raw json.RawMessage) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		if name == "" {
			name = "(message)"
		}
		return nil, fmt.Errorf("%s is %s; expected an object", name, jsonType(raw))
	}
	return members, nil
}

func objectMember(parent, name string, of map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	raw, ok := of[name]
	if !ok {
		return nil, fmt.Errorf("%s%s is missing; expected an object", parent, name)
	}
	return object(parent+name, raw)
}

func member(parent, name string, of map[string]json.RawMessage, into any, what string) error {
	raw, ok := of[name]
	if !ok {
		return fmt.Errorf("%s%s is missing; expected %s", parent, name, what)
	}
	if string(raw) == "null" || json.Unmarshal(raw, into) != nil {
		return fmt.Errorf("%s%s is %s; expected %s", parent, name, jsonType(raw), what)
	}
	return nil
}

// jsonType describes a JSON value for an error text.
func jsonType(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "missing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "the string " + Quote(string(raw[1:max(1, len(raw)-1)]))
	case 't', 'f', 'n':
		return string(raw)
	}
	return "the number " + strings.Trim(Quote(string(raw)), `"`)
}
