package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi/keys"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func TestKeysFileMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	for text, want := range map[string]string{
		"":              "EOF",
		"[]":            "expected what",
		`{"keyz":[]}`:   `unknown field "keyz"`,
		`{"keys":[{}]}`: "keys[0].sha256",
		`{"keys":[{"name":"a b","sha256":"` + strings.Repeat("0", 64) + `"}]}`: "keys[0].name",
		`{"keys":[{"name":"a","sha256":"` + strings.Repeat("0", 63) + `"}]}`:   "keys[0].sha256",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(t.Context(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: apitest.TempStore(t), KeysFile: path}})
		if err == nil || !strings.HasPrefix(err.Error(), "http_api.keys_file: ") || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
	}
}

// TestKeysChangeWhileServing: a running server takes over what is added and
// removed; a broken file leaves the keys as they were and is logged once.
func TestKeysChangeWhileServing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	log := &testlog.Buffer{}
	s := startServer(t, Options{Config: config.HTTPAPI{KeysFile: path}, Logger: log.Logger()})
	if log.Count("no API keys") != 1 {
		t.Error("no warning about no keys")
	}
	code := func(key string) int {
		code, _, _ := request(t, s, "GET", "/v2/protocol/cars?api_key="+key, "")
		return code
	}
	becomes := func(key string, want int) {
		t.Helper()
		testwait.Until(t, fmt.Sprintf("the answer is %d", want), func() bool { return code(key) == want })
	}
	if got := code("any"); got != 401 {
		t.Errorf("no keys: %d", got)
	}
	key, err := keys.Add(path, "one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	becomes(key, 200)
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the broken file is noticed", func() bool {
		if got := code(key); got != 200 {
			t.Fatalf("broken file: %d", got)
		}
		return log.Count("cannot be used") == 1
	})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keys.Remove(path, "one"); err != nil {
		t.Fatal(err)
	}
	becomes(key, 401)
}
