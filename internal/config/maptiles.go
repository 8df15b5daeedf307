package config

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"external-server/internal/config/address"
	"external-server/internal/config/document"
)

const (
	defaultMapMaxZoom = 19
	maxMapMaxZoom     = 24
	maxAttribution    = 200 // characters
)

// mapTiles reads where the dashboard's map has its tiles from.
func (l *loader) mapTiles(o *document.Object, a *Admin) {
	a.MapTiles = o.Str("map_tiles", "")
	a.MapAttribution = o.Str("map_attribution", "")
	a.MapMaxZoom = int(o.Integer("map_max_zoom", defaultMapMaxZoom, 0, maxMapMaxZoom))
	if fault := address.TilesFault(a.MapTiles); fault != "" {
		l.Errorf(o.At("map_tiles"), o.Key("map_tiles"), `%s; expected a URL such as "https://tiles.example.org/{z}/{x}/{y}.png"`, fault)
	}
	if utf8.RuneCountInString(a.MapAttribution) > maxAttribution || strings.ContainsFunc(a.MapAttribution, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		l.Errorf(o.At("map_attribution"), o.Key("map_attribution"), "expected a text of at most %d characters without control characters", maxAttribution)
	}
	if a.TLS != nil && strings.HasPrefix(a.MapTiles, "http://") && !address.LoopbackOrigin(a.MapTiles) {
		l.Warnf(o.At("map_tiles"), o.Key("map_tiles"), "the dashboard is served with tls, and browsers load nothing by http into such a page; expected https")
	}
}

// MapOrigin is the scheme and host of the tiles, "" without them.
func (a *Admin) MapOrigin() string {
	parts := strings.SplitN(a.MapTiles, "/", 4)
	if len(parts) < 4 {
		return ""
	}
	return parts[0] + "//" + parts[2]
}
