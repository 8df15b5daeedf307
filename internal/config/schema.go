package config

import (
	_ "embed" // schema.json
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema (draft 2020-12) of all four formats. It
// describes the shape; Load also checks files, numbers that must differ and
// everything else that needs more than one value.
func Schema() []byte { return slices.Clone(schema) }
