// Package manual writes the manual page of the configuration file from its JSON schema.
package manual

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"external-server/internal/config"
)

// Page returns external-server-config(5): every key of the schema with its meaning,
// default and limits, as a manual page of the given version of the program.
func Page(version string) ([]byte, error) {
	root, err := readSchema(config.Schema())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH EXTERNAL-SERVER-CONFIG 5 \"\" \"external-server %s\" \"External Server\"\n.nh\n.ad l\n", Roff(version))
	b.WriteString(".SH NAME\nexternal-server-config - configuration file of external-server(1)\n")
	b.WriteString(".SH DESCRIPTION\nOne JSON object in UTF-8. " + Roff(root.text("description")) + "\n")
	b.WriteString(Roff("The command \"external-server check\" tells whether a server would start with the file, \"external-server config schema\" prints the JSON schema from which this page is made, "+
		"\"external-server reload\" puts a changed file in force. A key that is misspelt is a warning with its line.") + "\n")
	b.WriteString(".SH KEYS\n")
	w := writer{out: &b, root: root}
	w.keys(root, "")
	b.WriteString(".SH ENVIRONMENT\n")
	fmt.Fprintf(&b, ".TP\n\\fB%s\\fP, \\fB%s\\fP\nUser name and password at the broker; they win over the file.\n", config.EnvUsername, config.EnvPassword)
	fmt.Fprintf(&b, ".TP\n\\fB%s\\fP, \\fB%s\\fP, \\fB%s\\fP\nUser name and password at etcd, and the token of the servers of a cluster; they win over the file.\n", config.EnvEtcdUsername, config.EnvEtcdPassword, config.EnvPeerToken)
	b.WriteString(".SH FILES\n.TP\n\\fB./config/config.json\\fP\nThe default.\n.TP\n\\fB/etc/external-server/config.json\\fP\nThe file of the service that the packages install.\n")
	b.WriteString(".SH EXAMPLE\n.nf\n" + Roff(example) + "\n.fi\n.SH SEE ALSO\n\\fBexternal-server(1)\\fP, \\fBexternal-server-check(1)\\fP, \\fBexternal-server-config-migrate(1)\\fP\n")
	return b.Bytes(), nil
}

// example is the smallest useful file.
const example = `{
  "company_name": "my_company",
  "embedded_broker": {},
  "admin": {},
  "common_modules": { "1000": { "lib_path": "libexample-module.so" } },
  "cars": { "car_a": {} }
}`

// Roff writes text so that troff shows it as it is.
func Roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

// schemaNode is a JSON object of the schema that keeps the order of its keys.
type schemaNode struct {
	order  []string
	values map[string]json.RawMessage
}

func readSchema(raw []byte) (schemaNode, error) {
	n := schemaNode{values: make(map[string]json.RawMessage)}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return n, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return n, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return n, err
		}
		name, ok := key.(string)
		if !ok {
			return n, fmt.Errorf("the schema has %v for a key", key)
		}
		n.order = append(n.order, name)
		n.values[name] = value
	}
	return n, nil
}

func (n schemaNode) text(key string) string {
	var s string
	_ = json.Unmarshal(n.values[key], &s) // "" when it is absent or no string
	return s
}

// child returns an object below a key, empty when there is none.
func (n schemaNode) child(key string) schemaNode {
	if raw := n.values[key]; len(raw) > 0 && raw[0] == '{' {
		if c, err := readSchema(raw); err == nil {
			return c
		}
	}
	return schemaNode{}
}

// writer writes the keys of a schema.
type writer struct {
	out  *bytes.Buffer
	root schemaNode
}

// resolve follows a reference, and takes of several shapes the one that has keys.
func (w writer) resolve(n schemaNode) schemaNode {
	if ref, ok := strings.CutPrefix(n.text("$ref"), "#/$defs/"); ok {
		return w.resolve(w.root.child("$defs").child(ref)) // no definition refers to itself
	}
	for _, several := range []string{"anyOf", "oneOf"} {
		var shapes []json.RawMessage
		_ = json.Unmarshal(n.values[several], &shapes) // none when it is absent
		for _, raw := range shapes {
			if s, err := readSchema(raw); err == nil {
				if s = w.resolve(s); len(s.child("properties").order) > 0 || len(s.child("items").order) > 0 {
					return s
				}
			}
		}
	}
	return n
}

// keys writes what an object may hold, and what is in there.
func (w writer) keys(n schemaNode, prefix string) {
	properties := n.child("properties")
	for _, name := range properties.order {
		if name != "$schema" {
			w.key(properties.child(name), prefix+name)
		}
	}
}

func (w writer) key(n schemaNode, path string) {
	shape := w.resolve(n)
	description := n.text("description")
	if description == "" {
		description = shape.text("description")
	}
	fmt.Fprintf(w.out, ".TP\n\\fB%s\\fP\n%s%s\n", Roff(path), Roff(description), Roff(limitsOf(n, shape)))
	w.keys(shape, path+".")
	if items := w.resolve(shape.child("items")); len(items.order) > 0 {
		w.keys(items, path+"[].")
	}
	if entry := w.resolve(shape.child("additionalProperties")); len(entry.order) > 0 {
		w.keys(entry, path+".NAME.")
	}
	for _, pattern := range shape.child("patternProperties").order {
		w.keys(w.resolve(shape.child("patternProperties").child(pattern)), path+".NUMBER.")
	}
}

var manyBlanks = regexp.MustCompile(`\s+`)

// limitsOf says which values are allowed and which one is the default.
func limitsOf(n, shape schemaNode) string {
	var out string
	for _, limit := range []struct{ key, words string }{
		{"enum", "One of"}, {"minimum", "At least"}, {"exclusiveMinimum", "More than"}, {"maximum", "At most"}, {"default", "Default"},
	} {
		raw := n.values[limit.key]
		if raw == nil {
			raw = shape.values[limit.key]
		}
		if text := manyBlanks.ReplaceAllString(string(raw), " "); text != "" && text != `""` {
			out += fmt.Sprintf(" %s: %s.", limit.words, text)
		}
	}
	return out
}
