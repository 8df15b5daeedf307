package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Documents name who acts: no "whoever" and "nobody" outside code and examples of
// what not to write, and no "(… apart)".
func TestWords(t *testing.T) {
	avoided := regexp.MustCompile(`(?i)\b(whoever|nobody|in no time)\b|apart\)`)
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	for _, page := range pages(t) {
		text := code.ReplaceAllString(read(t, page), "")
		for line := range strings.Lines(text) {
			if m := avoided.FindString(line); m != "" {
				t.Errorf("%s says %q; name who acts: %s", page, m, strings.TrimSpace(line))
			}
		}
	}
}

// So do the comments of the code and of its tests.
func TestWordsOfComments(t *testing.T) {
	avoided := regexp.MustCompile(`(?i)// [^"\n]*\b(whoever|nobody)\b`)
	files := 0
	for _, folder := range []string{"cmd", "internal", "sdk", "modules/example-go", "test"} {
		err := filepath.WalkDir(filepath.Join("..", "..", "..", folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
				return err
			}
			files++
			text, err := os.ReadFile(path)
			for _, line := range avoided.FindAllString(string(text), -1) {
				t.Errorf("%s: %q; name who acts", path, line)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 600 {
		t.Errorf("only %d files were read", files)
	}
}
