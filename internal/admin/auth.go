package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"external-server/internal/config"
	"external-server/internal/httpapi/forwarded"
)

// operateHeader must be sent, with any value, by requests that change something
// and carry no token: a page of another site cannot send it without asking first.
const operateHeader = "X-External-Server"

// access is who may do what, and load what; it changes with a reload.
type access struct {
	listen   string // host of the configured address
	loopback bool   // only this machine can reach the endpoint
	insecure bool
	tokens   []token
	tiles    *mapInfo // nil: the map has none
	images   string   // their origin, for the Content-Security-Policy
}

type token struct {
	name string
	role config.Role
	hash [sha256.Size]byte
}

func newAccess(a *config.Admin) *access {
	host, _, _ := net.SplitHostPort(a.Listen)
	out := &access{listen: strings.ToLower(host), loopback: isLoopback(host), insecure: a.Insecure}
	if a.MapTiles != "" {
		out.tiles, out.images = &mapInfo{a.MapTiles, a.MapAttribution, a.MapMaxZoom}, " "+a.MapOrigin()
	}
	for _, t := range a.Tokens {
		out.tokens = append(out.tokens, token{name: t.Name, role: t.Role, hash: sha256.Sum256([]byte(t.Token.Reveal()))})
	}
	return out
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// fromHere tells whether the request comes from this machine.
func fromHere(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// identity is who makes a request.
type identity struct {
	name string // of the token, "" without
	role config.Role
}

func (i identity) may(role config.Role) bool { return i.role == config.RoleOperate || i.role == role }

// identify finds out who makes the request; a text says why not.
func (a *access) identify(r *http.Request) (identity, string) {
	if given, ok := bearer(r); ok {
		return a.byToken(given)
	}
	switch {
	case len(a.tokens) > 0:
		return identity{}, "a bearer token of the block admin of the configuration is needed"
	case a.loopback && !a.ours(r.Host):
		// A name that leads here without being ours: a page rebinding its own name
		// to this address would speak as if it were from here.
		return identity{}, "the request names a host that this endpoint does not have; use its configured address, or localhost"
	case a.loopback && fromHere(r) && forwarded.By(r) == "":
		return identity{role: config.RoleOperate}, ""
	case a.insecure:
		return identity{role: config.RoleRead}, "" // strangers change nothing
	}
	if by := forwarded.By(r); by != "" {
		return identity{}, "requests without token are accepted from this machine only, and this one came through a proxy (" + by + "); configure tokens"
	}
	return identity{}, "requests without token are accepted from this machine only"
}

func bearer(r *http.Request) (string, bool) {
	scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(given), true
}

// byToken compares with every token, in constant time.
func (a *access) byToken(given string) (identity, string) {
	hash := sha256.Sum256([]byte(given))
	var found identity
	for i := range a.tokens {
		if t := &a.tokens[i]; subtle.ConstantTimeCompare(t.hash[:], hash[:]) == 1 {
			found = identity{name: t.name, role: t.role}
		}
	}
	if found.role == "" {
		return found, "the token is not one of the configuration"
	}
	return found, ""
}

// ours tells whether the Host header names this machine or the configured
// address.
func (a *access) ours(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return isLoopback(host) || strings.ToLower(strings.Trim(host, "[]")) == a.listen
}

// mayChange tells whether the request may change something, beyond its role.
func (i identity) mayChange(r *http.Request) string {
	if i.name == "" && r.Header.Get(operateHeader) == "" {
		return "requests without token that change something need the header " + operateHeader
	}
	return ""
}
