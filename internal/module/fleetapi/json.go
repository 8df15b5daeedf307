package fleetapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// parse reads exactly one JSON text (MM-2). Numbers keep the digits they were
// written with, so that large integers and doubles pass unchanged.
func parse(data []byte) (any, error) {
	if !utf8.Valid(data) { // encoding/json would replace what is wrong
		return nil, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty")
		}
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it is not JSON: more follows after the first value")
	}
	return v, nil
}

// compact writes v as the C++ libraries do: no white space, members in
// alphabetical order (MM-15).
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// integer reads a JSON number or boolean as the C++ libraries do: fractions are
// cut off, true is 1 (MM-34).
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, true
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return int64(n), true // the bits count: it is reduced further
		}
		f, err := v.Float64()
		if err != nil || math.Abs(f) >= math.MaxInt64 {
			return 0, false
		}
		return int64(f), true
	}
	return 0, false
}
