package document

import (
	"bytes"
	"encoding/json"
)

// Ordered is a JSON object whose keys keep their order.
type Ordered []Field

// Field is a key of an Ordered and its value.
type Field struct {
	Key   string
	Value any
}

// Add appends a key.
func (o *Ordered) Add(key string, value any) { *o = append(*o, Field{key, value}) }

// MarshalJSON writes the keys in order and leaves <, > and & as they are.
func (o Ordered) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(f.Key); err != nil {
			return nil, err
		}
		b.Truncate(b.Len() - 1) // the newline of Encode
		b.WriteByte(':')
		if nested, ok := f.Value.(Ordered); ok {
			raw, err := nested.MarshalJSON()
			if err != nil {
				return nil, err
			}
			b.Write(raw)
			continue
		}
		if err := enc.Encode(f.Value); err != nil {
			return nil, err
		}
		b.Truncate(b.Len() - 1)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
