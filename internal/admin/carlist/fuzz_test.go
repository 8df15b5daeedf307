package carlist

import (
	"bytes"
	"encoding/csv"
	"net/url"
	"strings"
	"testing"
)

// FuzzQuery: whatever a query says, it is understood or refused with a text.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "q=a&state=running&sort=why&order=desc&limit=1&offset=2&module=3", "limit=x", "%", "sort=;", "q=%ff&reason=%00",
		"label=a=b&label=c", "label==", "find=%20", "format=csv&why=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		values, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		q, err := ParseQuery(values, false)
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a text")
			}
			return
		}
		if q.limit < 1 || q.limit > MaxLimit && !q.CSV || q.limit > MaxAll || q.offset < 0 || orders[q.sort] == nil || len(q.labels) > maxQueried {
			t.Errorf("%+v", q)
		}
		q.Matches(&Brief{Name: "car1", Labels: map[string]string{"a": "b"}}, func(int32) bool { return true })
	})
}

// FuzzCSV: whatever a cell says, a reader of CSV gets it back with quote signs added only,
// and no spreadsheet finds the beginning of a formula in it.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"", "car1", "=1+1", "a;=1+1", "\"=1", "a,\"b", "a\r\n=b", "\t=1", "-5", "＝1", " =1", "a, =1", "\xff\x00", "\"\xd8\xcd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out bytes.Buffer
		if err := WriteCSV(&out, []Brief{{Name: "car1", Session: s, Labels: map[string]string{"depot": s}}}); err != nil {
			t.Fatal(err)
		}
		// A reader of CSV takes \r\n in a cell for \n.
		raw := out.String()
		rows, err := csv.NewReader(strings.NewReader(raw)).ReadAll()
		if err != nil || len(rows) != 2 || len(rows[1]) != len(columns)+1 {
			t.Fatalf("%v: %q", err, raw)
		}
		plain := func(s string) string {
			return strings.ReplaceAll(strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "'", ""), "\r", "")
		}
		for _, cell := range []string{rows[1][5], rows[1][len(columns)]} {
			if plain(cell) != plain(strings.Join(strings.Split(s, ""), "")) {
				t.Errorf("%q became %q", s, cell)
			}
			for _, part := range strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune("\t\r\n,;\"", r) }) {
				if part = strings.TrimLeft(part, " "); part != "" && strings.ContainsAny(string([]rune(part)[0]), "=+-@＝＋－＠") {
					t.Errorf("%q begins a formula in %q", part, cell)
				}
			}
		}
	})
}
