package commander

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzRead: whatever a body says, it is one message with data, or refused with a text.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"", "{}", "[]", `{"device_id":{"module_id":1,"type":1,"role":"a","name":"b"},"payload":{"data":{}}}`,
		`{"payload":{"data":null}}`, `{"payload":{"data":1,"encoding":"X"}} 7`, `{"device_id":{"module_id":1e400}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Read(strings.NewReader(s))
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a text")
			}
			return
		}
		if !json.Valid(m.Payload.Data) || m.Payload.Encoding == "" || m.Payload.Type == "" {
			t.Errorf("%+v", m)
		}
		if _, err := json.Marshal([]Message{m}); err != nil {
			t.Errorf("cannot be written again: %v", err)
		}
	})
}
