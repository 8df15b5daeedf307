package keys

import (
	"strings"
	"testing"
)

// FuzzKeysFile reads any keys file.
func FuzzKeysFile(f *testing.F) {
	f.Add([]byte(`{"keys":[{"name":"a","sha256":"` + strings.Repeat("ab", 32) + `","created":"2025-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parse("file", text)
		if err != nil && len(keys) > 0 {
			t.Fatal("keys with an error")
		}
		for _, k := range keys {
			if len(k.SHA256) != 64 || k.Name == "" {
				t.Fatalf("%+v", k)
			}
		}
	})
}
