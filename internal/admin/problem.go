package admin

import (
	"encoding/json"
	"io"
	"net/http"

	"external-server/internal/admin/reply"
)

// problem is an error of RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Field is the member of the body that is wrong, such as device_id.role.
	Field string `json:"field,omitempty"`
}

func fail(w http.ResponseWriter, status int, detail string) { failAt(w, status, "", detail) }

// failAt is fail about a member of the body.
func failAt(w http.ResponseWriter, status int, field, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// The peer may be gone and cannot be told.
	_ = json.NewEncoder(w).Encode(problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Field: field})
}

// answer writes a JSON answer.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// answerLong writes a JSON answer that is long with many cars.
func answerLong(w http.ResponseWriter, r *http.Request, body any) {
	w.Header().Set("Content-Type", "application/json")
	reply.Compressed(w, r, func(out io.Writer) error { return json.NewEncoder(out).Encode(body) })
}
