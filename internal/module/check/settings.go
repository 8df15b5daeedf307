package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"external-server/internal/module"
)

// ReadSettings completes the target from a JSON file with the members number,
// config, status, conversation and cycles.
func (t *Target) ReadSettings(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("settings of the check: %w", err)
	}
	if err := t.parseSettings(data); err != nil {
		return fmt.Errorf("settings of the check, %s: %w", path, err)
	}
	return nil
}

func (t *Target) parseSettings(data []byte) error {
	var s struct {
		Number       int32      `json:"number"`
		Config       pairs      `json:"config"`
		Status       string     `json:"status"`
		Conversation []Exchange `json:"conversation"`
		Cycles       int        `json:"cycles"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON object")
	}
	if s.Cycles < 0 {
		return fmt.Errorf("cycles is %d, expected a positive number", s.Cycles)
	}
	t.Number, t.Config, t.Status, t.Conversation, t.Cycles = s.Number, s.Config, s.Status, s.Conversation, s.Cycles
	return nil
}

// pairs is a JSON object whose order counts (MOD-8).
type pairs []module.Pair

// UnmarshalJSON accepts strings, and numbers and booleans as MOD-9 has it.
func (p *pairs) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return errors.New("config must be an object of strings, numbers and booleans")
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		value, err := decoder.Token()
		if err != nil {
			return err
		}
		pair := module.Pair{Key: key.(string)}
		switch v := value.(type) {
		case string:
			pair.Value = v
		case json.Number:
			pair.Value = v.String()
		case bool:
			pair.Value = map[bool]string{true: "1", false: "0"}[v]
		default:
			return fmt.Errorf("config key %q must be a string, a number or a boolean", pair.Key)
		}
		*p = append(*p, pair)
	}
	return nil
}
