package fleetapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// Configuration keys (MM-9 and the TLS keys that are ours).
const (
	keyURL     = "api_url"
	keyKey     = "api_key"
	keyCompany = "company_name"
	keyCar     = "car_name"
	keyCount   = "max_requests_threshold_count"
	keyPeriod  = "max_requests_threshold_period_ms"
	keyLong    = "delay_after_threshold_reached_ms"
	keyShort   = "retry_requests_delay_ms"
	keyCA      = "ca_file"
	keyCert    = "cert_file"
	keyKeyFile = "key_file"
)

// Defaults of MM-9 [REC].
const (
	defaultCount  = 3
	defaultPeriod = 1000 * time.Millisecond
	defaultLong   = 500 * time.Millisecond
	defaultShort  = 220 * time.Millisecond
)

// maxGuardCount bounds K: the guard remembers as many times per car.
const maxGuardCount = 10000

// settings are the checked pairs of one instance.
type settings struct {
	url   string // without trailing slash; "" means the API inside the process
	key   string // "" means that none is sent
	car   fleet.CarID
	guard guardSettings
	tls   tlsFiles
}

// tlsFiles identifies one HTTP client; all empty means the system's CAs and no
// client certificate.
type tlsFiles struct{ ca, cert, key string }

var (
	// urlPattern is MM-9: neither dots nor a query in the path.
	urlPattern = regexp.MustCompile(`^https?://[\w-]+(\.[\w-]+)*(:\d+)?(/[\w-]+)*/?$`)
	leadingInt = regexp.MustCompile(`^\s*\+?\d+`)
)

// parseSettings checks the pairs as MM-9 says and reports all faults at once.
// No error holds a value, because each may be a secret in the wrong place (DEF-45).
// unknown returns the keys that mean nothing
// to the modules, loose those whose number is followed by other characters.
func parseSettings(k *kind, spec module.InstanceSpec) (s settings, unknown, loose []string, err error) {
	s = settings{
		car:   spec.Car,
		guard: guardSettings{count: defaultCount, period: defaultPeriod, long: defaultLong, short: defaultShort},
	}
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("key %s: %s", key, fmt.Sprintf(format, args...)))
	}
	seen := make(map[string]bool, len(spec.Config))
	for _, p := range spec.Config {
		if seen[p.Key] { // the first one counts (MOD-8)
			continue
		}
		seen[p.Key] = true
		number := func(most int64) int64 {
			n, rest, err := parseNumber(k, p.Value, most)
			if err != nil {
				fail(p.Key, "%v", err)
			}
			if rest {
				loose = append(loose, p.Key)
			}
			return n
		}
		ms := func() time.Duration { return time.Duration(number(24*3600*1000)) * time.Millisecond }
		switch p.Key {
		case keyURL:
			if err := checkURL(p.Value); err != nil {
				fail(p.Key, "%v", err)
			}
			s.url = strings.TrimSuffix(p.Value, "/")
		case keyKey:
			if p.Value == "" {
				fail(p.Key, "it is empty; expected the key of the API, or leave the key out when the API needs none")
			}
			s.key = p.Value
		case keyCompany:
			s.car.Company = p.Value
		case keyCar:
			s.car.Car = p.Value
		case keyCount:
			s.guard.count = int(number(maxGuardCount))
		case keyPeriod:
			s.guard.period = ms()
		case keyLong:
			s.guard.long = ms()
		case keyShort:
			s.guard.short = ms()
		case keyCA:
			s.tls.ca = p.Value
		case keyCert:
			s.tls.cert = p.Value
		case keyKeyFile:
			s.tls.key = p.Value
		default:
			unknown = append(unknown, p.Key)
		}
	}
	for _, n := range []struct{ key, value string }{{keyCompany, s.car.Company}, {keyCar, s.car.Car}} {
		if !fleet.ValidName(n.value) {
			fail(n.key, "expected lower case letters, digits and underscores, at least one")
		}
	}
	if (s.tls.cert == "") != (s.tls.key == "") {
		fail(keyCert+" and "+keyKeyFile, "one of them is missing; a client certificate needs both")
	}
	if s.tls != (tlsFiles{}) && s.url != "" && !strings.HasPrefix(s.url, "https://") {
		fail(keyURL, "it begins with http:// although %s, %s or %s is set; expected https://", keyCA, keyCert, keyKeyFile)
	}
	for _, f := range []struct{ key, path string }{{keyCA, s.tls.ca}, {keyCert, s.tls.cert}, {keyKeyFile, s.tls.key}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			fail(f.key, "the file cannot be used: %v; expected the path of a PEM file", withoutPath(err))
		}
	}
	return s, unknown, loose, errors.Join(errs...)
}

// withoutPath returns why a file cannot be used.
func withoutPath(err error) error {
	var about *fs.PathError
	if errors.As(err, &about) {
		return about.Err
	}
	return err
}

// nameFiles puts the keys in the place of the paths in a text about the files.
func (f tlsFiles) nameFiles(text string) string {
	for _, named := range []struct{ path, key string }{{f.ca, keyCA}, {f.cert, keyCert}, {f.key, keyKeyFile}} {
		if named.path != "" {
			text = strings.ReplaceAll(text, named.path, named.key)
		}
	}
	return text
}

// checkURL accepts what MM-9 accepts. The value may hold a key in a wrong place,
// so no error shows it.
func checkURL(value string) error {
	const expected = "expected http:// or https://, a host, optionally :port and path segments of letters, digits, - and _, such as http://http-api:8080/v2/protocol"
	if !urlPattern.MatchString(value) {
		hint := ""
		switch {
		case strings.ContainsAny(value, "?#"):
			hint = "; it holds a query or fragment, the key belongs to " + keyKey
		case strings.Contains(value, "@"):
			hint = "; it holds a user name, which the API does not know"
		case !strings.HasPrefix(value, "http://") && !strings.HasPrefix(value, "https://"):
			hint = "; the scheme is missing"
		}
		return fmt.Errorf("the value is not a URL of the API%s; %s", hint, expected)
	}
	u, err := url.Parse(value)
	if err != nil {
		return fmt.Errorf("the value is not a URL of the API; %s", expected)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return errors.New("the port is out of range; expected 1 to 65535")
		}
	}
	return nil
}

// parseNumber reads an integer from 0 to most. Modules 2 and 3 have always
// accepted other characters behind it (MM-9), which rest reports.
func parseNumber(k *kind, value string, most int64) (n int64, rest bool, err error) {
	text := value
	if !k.strictNumbers {
		if text = leadingInt.FindString(value); text != value {
			rest = text != ""
		}
		text = strings.TrimPrefix(strings.TrimSpace(text), "+")
	}
	n, err = strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, false, fmt.Errorf("expected an integer from 0 to %d", most)
	}
	return n, rest, nil
}
