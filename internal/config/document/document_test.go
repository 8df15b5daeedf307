package document

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Every problem of a document is told at once, each at its line and column, which counts
// characters and not bytes.
func TestProblemsHavePlaces(t *testing.T) {
	text := "{\n" +
		"  \"täxt\": 5, \"word\": 7,\n" +
		"  \"wait_s\": \"soon\",\n" +
		"  \"list\": [{\"name\": \"\"}, 3],\n" +
		"  \"wodr\": true,\n" +
		"  \"word\": \"twice\"\n" +
		"}"
	r := NewReader("f.json", []byte(text))
	o := r.Root()
	if o == nil {
		t.Fatal("the document is an object")
	}
	if got := o.Str("word", "default"); got != "default" {
		t.Errorf("a number was taken for the string %q", got)
	}
	if got := o.Duration("wait_s", time.Second, time.Minute, time.Second); got != time.Minute {
		t.Errorf("a word was taken for %v", got)
	}
	o.List("list", func(item *Object) { item.Text("name") })
	o.Required("missing", "something")
	o.Finish()
	warnings, err := r.Result()
	var problems Errors
	if !errors.As(err, &problems) {
		t.Fatalf("the error is %v, want one of type Errors", err)
	}
	want := `f.json:1:1: missing: required, but missing; expected something
f.json:2:22: word: expected a string, got a number
f.json:3:13: wait_s: expected a number of seconds, 1 or more and at most 1000000000, got a string
f.json:4:21: list[0].name: must not be empty
f.json:4:26: list[1]: expected an object, got a number
f.json:6:3: word: the key appears twice in one object; remove one`
	if problems.Error() != want {
		t.Errorf("the errors are\n%v\nwant\n%s", problems, want)
	}
	want = `f.json:2:3: "täxt": unknown key, ignored
f.json:5:3: wodr: unknown key, ignored; did you mean word?`
	if got := Errors(warnings).Error(); got != want {
		t.Errorf("the warnings are\n%s\nwant\n%s", got, want)
	}
}

// What is no JSON is one error, also when keys appeared twice before it.
func TestOneFaultOfTheGrammar(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": 1, "a": 2,}`: "f.json:1:17: invalid JSON: invalid character '}' looking for beginning of object key string; remove the comma before }",
		"{\n  // why\n}":    "f.json:2:3: invalid JSON: invalid character '/' looking for beginning of object key string; JSON has no comments, remove it",
		"":                  "f.json:1:1: the file is empty; expected a JSON object",
		"\xef\xbb\xbf{}":    "f.json:1:1: the file begins with a byte order mark; expected plain UTF-8, save it without BOM",
		"{\"a\": \"\xff\"}": "f.json:1:8: invalid UTF-8, byte 0xff; expected a file in UTF-8",
		"[]":                "f.json:1:1: expected an object, got an array",
		strings.Repeat("[", 65) + strings.Repeat("]", 65): "f.json:1:65: nested deeper than 64 levels; no configuration needs that",
	} {
		r := NewReader("f.json", []byte(text))
		if o := r.Root(); o != nil {
			t.Errorf("%.20q was taken for an object", text)
		}
		if _, err := r.Result(); err == nil || err.Error() != want {
			t.Errorf("%.20q: the error is\n%v\nwant\n%s", text, err, want)
		}
	}
}

// plain returns a value as encoding/json does.
func plain(t *testing.T, v *Value) any {
	t.Helper()
	switch v.Kind {
	case KindNull:
		return nil
	case KindBool:
		return v.Text == "true"
	case KindNumber:
		return json.Number(v.Text)
	case KindString:
		return v.Text
	case KindArray:
		list := []any{}
		for i := range v.Items {
			list = append(list, plain(t, &v.Items[i]))
		}
		return list
	}
	object := map[string]any{}
	for i := range v.Members {
		object[v.Members[i].Key] = plain(t, &v.Members[i].Value)
	}
	return object
}

// FuzzRoot: a document is what encoding/json takes it for, except that of two equal keys
// the first counts; every problem has a place in it.
func FuzzRoot(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a": {"b": [1, -2.5e3, true, null, "x"]}}`, `{"a":1,"b":2,"a":3}`, "{\n\"\\u0041\": \"\\n\\\"\\ud800\"}", `[1]`, `{"a"`, "\xff\xfe",
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"i":10}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := NewReader("f.json", []byte(text))
		o := r.Root()
		_, err := r.Result()
		var problems Errors
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("an error of another type: %v", err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Column > len(text)+1 {
				t.Errorf("a problem that is nowhere in %d lines: %v", lines, p)
			}
		}
		if o == nil {
			if len(problems) == 0 {
				t.Error("no object, and no reason")
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if len(problems) > 0 { // keys that appear twice
			return
		}
		if got := plain(t, o.Value); !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nis\n%s\nwant\n%s", text, fmt.Sprint(got), fmt.Sprint(want))
		}
	})
}

func TestOrderedKeepsItsOrder(t *testing.T) {
	var o Ordered
	o.Add("z", "<&>")
	o.Add("a", Ordered{{"y", 1}, {"b", []string{"x"}}})
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"z":"<&>","a":{"y":1,"b":["x"]}}`; string(direct) != want || !json.Valid(raw) {
		t.Errorf("the object is %s, want %s", direct, want)
	}
}
