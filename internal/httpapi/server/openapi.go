package server

import _ "embed" // the two files below

// openAPI is the description of the API for programs.
//
//go:embed openapi.json
var openAPI []byte

// uiPage is the description for people: one page without anything from elsewhere.
//
//go:embed ui.html
var uiPage []byte
