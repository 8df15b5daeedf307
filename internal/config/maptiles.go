package config

import (
	"net/netip"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"external-server/internal/config/document"
)

const (
	defaultMapMaxZoom = 19
	maxMapMaxZoom     = 24
	maxMapTiles       = 1000 // bytes
	maxAttribution    = 200  // characters
)

// mapTiles reads where the dashboard's map has its tiles from.
func (l *loader) mapTiles(o *document.Object, a *Admin) {
	a.MapTiles = o.Str("map_tiles", "")
	a.MapAttribution = o.Str("map_attribution", "")
	a.MapMaxZoom = int(o.Integer("map_max_zoom", defaultMapMaxZoom, 0, maxMapMaxZoom))
	if fault := tilesFault(a.MapTiles); fault != "" {
		l.Errorf(o.At("map_tiles"), o.Key("map_tiles"), `%s; expected a URL such as "https://tiles.example.org/{z}/{x}/{y}.png"`, fault)
	}
	if utf8.RuneCountInString(a.MapAttribution) > maxAttribution || strings.ContainsFunc(a.MapAttribution, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		l.Errorf(o.At("map_attribution"), o.Key("map_attribution"), "expected a text of at most %d characters without control characters", maxAttribution)
	}
	if a.TLS != nil && strings.HasPrefix(a.MapTiles, "http://") && !loopbackOrigin(a.MapTiles) {
		l.Warnf(o.At("map_tiles"), o.Key("map_tiles"), "the dashboard is served with tls, and browsers load nothing by http into such a page; expected https")
	}
}

// tilesFault says what is wrong with the URL of tiles. Its origin becomes a part of the
// dashboard's Content-Security-Policy, so nothing is let through that means something there.
func tilesFault(tiles string) string {
	if tiles == "" {
		return ""
	}
	if len(tiles) > maxMapTiles {
		return "longer than 1000 bytes"
	}
	if strings.ContainsFunc(tiles, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"'<>\^`+"`", r) }) {
		return "a space, quote or other character that no URL has"
	}
	rest := tiles
	for _, name := range []string{"{z}", "{x}", "{y}"} {
		if strings.Count(tiles, name) != 1 {
			return name + " must be there once"
		}
		rest = strings.Replace(rest, name, "0", 1)
	}
	if strings.ContainsAny(rest, "{}") {
		return "only {z}, {x} and {y} are replaced"
	}
	u, err := url.Parse(rest)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "":
		return "not a URL of http or https"
	case u.User != nil:
		return "a URL with user name, which browsers do not load"
	case u.Fragment != "":
		return "a URL with #, which is sent to no server"
	case !strings.HasPrefix(tiles, u.Scheme+"://"+u.Host+"/"):
		return "{z}, {x} and {y} must stand behind the host"
	}
	host := u.Hostname()
	if strings.Contains(host, ":") {
		return "an IPv6 address, which browsers let no page name as the origin of images; give it a name"
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostname.MatchString(host) {
		return "the host is no name and no address"
	}
	if port := u.Port(); port != "" && (len(port) > 5 || strings.Trim(port, "0123456789") != "") {
		return "the port is no number"
	}
	return ""
}

func loopbackOrigin(tiles string) bool {
	u, err := url.Parse(tiles)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

// MapOrigin is the scheme and host of the tiles, "" without them.
func (a *Admin) MapOrigin() string {
	parts := strings.SplitN(a.MapTiles, "/", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[0] + "//" + parts[2]
}
