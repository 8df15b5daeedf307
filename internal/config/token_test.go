package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokenFile: a token may be in a file of its own, which the configuration names and
// never shows.
func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"good": "planted-token\n", "empty": " \n", "words": "two words", "large": strings.Repeat("planted", 1000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for token, want := range map[string]string{
		`"token_file": "DIR/good"`:                ``,
		`"token_file": "DIR/none"`:                `admin.tokens[0].token_file: "DIR/none" does not exist; expected a file with the token alone`,
		`"token_file": "DIR/empty"`:               `admin.tokens[0].token_file: "DIR/empty" is empty; expected`,
		`"token_file": "DIR/words"`:               `"DIR/words" holds more than one word`,
		`"token_file": "DIR/large"`:               `"DIR/large" holds more than one word`,
		`"token_file": "DIR"`:                     `admin.tokens[0].token_file: "DIR"`,
		`"token_file": "DIR/good", "token": "x"`:  `token is there too; expected one of the two`,
		`"token_file": 5`:                         `admin.tokens[0].token_file: expected a string`,
		`"role": "operate", "name_of_token": "x"`: `admin.tokens[0].token: `,
	} {
		path := filepath.Join(dir, "config.json")
		text := with(strings.Replace(minimalD, `"lib_path": "lib.so"`, `"command": ["true"]`, 1), `"admin": {"tokens": [{"name": "a", `+strings.ReplaceAll(token, "DIR", dir)+`}]}`)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := Load(path, func(string) (string, bool) { return "", false })
		if want == "" {
			if err != nil || cfg.Admin.Tokens[0].Token.Reveal() != "planted-token" {
				t.Errorf("%s: %v", token, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(want, "DIR", dir)) || strings.Contains(err.Error(), "plantedplanted") {
			t.Errorf("%s: %v; expected %s", token, err, want)
		}
	}
}
