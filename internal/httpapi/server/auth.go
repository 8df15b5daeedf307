package server

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/forwarded"
)

// authenticate decides about HTTP-2 and returns the name of the key, "" when none is
// needed. Keys are compared by their hash.
func (h *handler) authenticate(r *http.Request, q url.Values) (name string, err error) {
	unauthorized := func(detail string) (string, error) {
		return "", httpapi.NewError(http.StatusUnauthorized, "%s", detail)
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	bearer := strings.EqualFold(scheme, "Bearer")
	given := q["api_key"]
	switch {
	case bearer && len(given) > 0:
		return unauthorized("both an api_key and a bearer token were given; send the query parameter api_key only")
	case h.trusted:
		return "", nil
	case h.keys == nil:
		// A page of a stranger in a browser on this machine can send requests here
		// under a name of its own; it cannot send them under ours.
		if !loopbackHost(r.Host) {
			return unauthorized("this server has no API keys and answers only requests for localhost; configure http_api.keys_file to serve others")
		}
		// Nor does a proxy on this machine make strangers trusted.
		if by := forwarded.By(r); by != "" {
			return unauthorized("this server has no API keys and answers only programs of its own machine, but " + by + " shows that a proxy has passed the request on; configure http_api.keys_file to serve others")
		}
		return "", nil
	case bearer:
		return unauthorized("this server issues and accepts no bearer tokens; use the query parameter api_key")
	case len(given) == 0 || given[0] == "":
		return unauthorized("the query parameter api_key is missing")
	case len(given) > 1:
		return unauthorized("the query parameter api_key was given more than once")
	}
	name, ok := h.keys.Find(given[0])
	if !ok {
		return unauthorized("the api_key is not known; 'external-server http-api key list' shows the names of those that are")
	}
	return name, nil
}

func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
