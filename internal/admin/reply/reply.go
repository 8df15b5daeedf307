// Package reply has what the operator's endpoint does with answers whatever they say: it
// compresses long ones, and sets the headers that browsers hold a page to.
package reply

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
)

// Compressed writes an answer, compressed when the peer takes that: a list of ten thousand cars
// is 3 MB, or a tenth of it.
func Compressed(w http.ResponseWriter, r *http.Request, body func(io.Writer) error) {
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

// Secure sets what browsers shall hold this server and others to. images are the origins
// of images beside this one, each with a space before it. There is no inline
// script or style, and nothing comes from elsewhere but images of the map's tiles.
func Secure(h http.Header, tls bool, images string) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:"+images+"; connect-src 'self'; "+
		"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
	if tls {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}
