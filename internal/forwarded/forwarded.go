// Package forwarded tells requests that a proxy has passed on. A server that trusts
// its own machine must not trust them: the connection is the proxy's, the request is
// a stranger's.
package forwarded

import (
	"net/http"
	"strings"
)

// By returns the name of the header that shows that a proxy has passed the request on,
// or "": it is Forwarded, Via, X-Real-Ip or one that begins with X-Forwarded-. A
// proxy that adds none of them cannot be told from a program of its machine.
func By(header http.Header) string {
	for _, name := range []string{"Forwarded", "Via", "X-Real-Ip"} {
		if _, ok := header[name]; ok {
			return name
		}
	}
	for name := range header {
		if strings.HasPrefix(name, "X-Forwarded-") {
			return name
		}
	}
	return ""
}
