// Package forwarded tells requests that a proxy has passed on. A server that trusts
// its own machine must not trust them: the connection is the proxy's, the request is
// a stranger's.
package forwarded

import (
	"net/http"
	"strings"
)

// By says what shows that a proxy has passed the request on, or "": the header
// Forwarded, Via, X-Real-Ip or one that begins with X-Forwarded-, or HTTP/1.0, which is
// what nginx speaks unless it is told otherwise. A proxy that adds no header and speaks a
// newer version cannot be told from a program of its machine.
func By(r *http.Request) string {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return "the header " + name
		}
	}
	if !r.ProtoAtLeast(1, 1) {
		return "HTTP/1.0"
	}
	return ""
}
