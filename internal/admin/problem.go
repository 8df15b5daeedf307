package admin

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
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
	write(w, r, func(out io.Writer) error { return json.NewEncoder(out).Encode(body) })
}

// write writes an answer, compressed when the peer takes that: a list of ten thousand cars
// is 3 MB, or a tenth of it.
func write(w http.ResponseWriter, r *http.Request, body func(io.Writer) error) {
	w.Header().Set("Vary", "Accept-Encoding")
	if !acceptsGzip(r.Header.Get("Accept-Encoding")) {
		w.WriteHeader(http.StatusOK)
		_ = body(w) // the peer may be gone and cannot be told
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	w.WriteHeader(http.StatusOK)
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one of the package's
	}
	_ = body(z)
	_ = z.Close()
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return !strings.HasPrefix(strings.ReplaceAll(params, " ", ""), "q=0") || strings.ContainsAny(params, "123456789")
		}
	}
	return false
}
