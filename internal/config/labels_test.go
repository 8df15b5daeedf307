package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Labels that cannot be shown, asked for or exported are errors that name the label.
func TestLabels(t *testing.T) {
	workdir(t)
	labelled := func(labels string) string {
		return strings.Replace(minimalD, `{"v": {}}`, `{"v": {"labels": `+labels+`}}`, 1)
	}
	cfg, warnings := mustLoad(t, labelled(`{"depot": "Brno střed", "model": "=2+3", "a-b_1": "x=y"}`))
	if want := []Label{{"depot", "Brno střed"}, {"model", "=2+3"}, {"a-b_1", "x=y"}}; !slices.Equal(cfg.Cars[0].Labels, want) {
		t.Errorf("labels %v, expected %v", cfg.Cars[0].Labels, want)
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	many := func(n int) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(`"l%d": "x"`, i)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	mustLoad(t, labelled(many(16)))
	for labels, want := range map[string]string{
		`["depot"]`:      "cars.v.labels: expected an object, got an array",
		`{"Depot": "x"}`: "cars.v.labels.Depot: the name of a label has up to 32 lower-case letters, digits, _ and -, such as depot",
		`{"": "x"}`:      `cars.v.labels."": the name of a label`,
		`{"a=b": "x"}`:   `cars.v.labels."a=b": the name of a label`,
		`{"` + strings.Repeat("a", 33) + `":"x"}`: "the name of a label has up to 32",
		`{"depot": 5}`:       `cars.v.labels.depot: expected a text, such as "brno", got a number`,
		`{"depot": ""}`:      "cars.v.labels.depot: expected a text of 1 to 64 characters",
		`{"depot": " brno"}`: "cars.v.labels.depot: expected a text of 1 to 64 characters",
		`{"depot": "a\nb"}`:  "cars.v.labels.depot: expected a text of 1 to 64 characters",
		`{"depot": "` + strings.Repeat("ž", 65) + `"}`: "cars.v.labels.depot: expected a text of 1 to 64 characters",
		`{"depot": "a", "depot": "b"}`:                 "cars.v.labels.depot: the key appears twice",
		many(17):                                       "cars.v.labels: 17 labels; expected 16 at most",
	} {
		write(t, "config.json", labelled(labels))
		_, _, err := Load("config.json", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", labels, err, want)
		}
	}

	// However many cars there are, a table of them has not more columns than that.
	var cars []string
	for i := range 65 {
		cars = append(cars, fmt.Sprintf(`"v%d": {"labels": {"l%d": "x"}}`, i, i))
	}
	write(t, "config.json", strings.Replace(minimalD, `{"v": {}}`, "{"+strings.Join(cars, ", ")+"}", 1))
	_, _, err := Load("config.json", nil)
	if err == nil || !strings.Contains(err.Error(), "cars.v64.labels.l64: the cars have labels of more than 64 different names") {
		t.Errorf("65 names: %v", err)
	}
}
