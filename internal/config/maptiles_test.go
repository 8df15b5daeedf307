package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestMapTiles(t *testing.T) {
	workdir(t)
	file := func(keys string) string { return with(minimalD, `"admin": {`+keys+`}`) }
	cfg, warnings := mustLoad(t, file(`"map_tiles": "http://127.0.0.1:8123/t/{z}/{y}/{x}?key=planted"`))
	if a := cfg.Admin; a.MapOrigin() != "http://127.0.0.1:8123" || a.MapMaxZoom != 19 || len(warnings) > 0 {
		t.Errorf("%+v, %v", a, warnings)
	}
	if text := cfg.Redacted().String(); strings.Contains(text, "planted") || !strings.Contains(text, "http://127.0.0.1:8123/t/{z}/{y}/{x}?HIDDEN") {
		t.Errorf("shown is %s", text)
	}
	cfg, _ = mustLoad(t, file(""))
	if a := cfg.Admin; a.MapTiles != "" || a.MapOrigin() != "" {
		t.Errorf("without tiles %+v", a)
	}
	_, warnings = mustLoad(t, file(`"tls": {"cert_file": "cert.pem", "key_file": "key.pem"}, "map_tiles": "http://tiles.example.org/{z}/{x}/{y}"`))
	if len(warnings) != 1 || !strings.Contains(warnings[0].String(), "expected https") {
		t.Errorf("warnings %v", warnings)
	}
	for tiles, want := range map[string]string{
		"https://t.example.org/{z}/{x}":                          "{y} must be there once",
		"https://t.example.org/{z}/{x}/{y}/{y}":                  "{y} must be there once",
		"https://{s}.example.org/{z}/{x}/{y}":                    "only {z}, {x} and {y} are replaced",
		"https://{z}.example.org/{x}/{y}":                        "{z}, {x} and {y} must stand behind the host",
		"ftp://t.example.org/{z}/{x}/{y}":                        "not a URL of http or https",
		"/tiles/{z}/{x}/{y}":                                     "not a URL of http or https",
		"https://u:p@t.example.org/{z}/{x}/{y}":                  "a URL with user name",
		"https://t.example.org/{z}/{x}/{y}#a":                    "a URL with #",
		"https://t.example.org; script-src */{z}/{x}/{y}":        "a space, quote or other character",
		"https://t.example.org;script-src/{z}/{x}/{y}":           "the host is no name and no address",
		"https://*/{z}/{x}/{y}":                                  "the host is no name and no address",
		"https://t,x/{z}/{x}/{y}":                                "the host is no name and no address",
		"https:///{z}/{x}/{y}":                                   "the host is no name and no address",
		"https://[::1]/{z}/{x}/{y}":                              "an IPv6 address",
		"https://t/" + strings.Repeat("a", 1000) + "{z}/{x}/{y}": "longer than 1000 bytes",
	} {
		write(t, "config.json", file(fmt.Sprintf(`"map_tiles": %q`, tiles)))
		_, _, err := Load("config.json", nil)
		if err == nil || !strings.Contains(err.Error(), "admin.map_tiles: "+want) {
			t.Errorf("%s: %v, expected %q", tiles, err, want)
		}
	}
	for keys, want := range map[string]string{
		`"map_attribution": "a\nb"`: "admin.map_attribution: expected a text of at most 200 characters",
		`"map_max_zoom": 25`:        "admin.map_max_zoom: expected a whole number from 0 to 24",
	} {
		write(t, "config.json", file(keys))
		if _, _, err := Load("config.json", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", keys, err)
		}
	}
}
