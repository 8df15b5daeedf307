package tlsfiles

import (
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/support/brokertest"
)

// What other servers will refuse of a certificate shows in the files of its owner.
func TestMutual(t *testing.T) {
	ours, theirs := brokertest.NewCerts(t), brokertest.NewCerts(t)
	now := time.Now()
	for name, tt := range map[string]struct {
		ca   string
		pair brokertest.Pair
		host string
		now  time.Time
		want string
	}{
		"all is well":             {ours.CAFile, ours.Replica, "localhost", now, ""},
		"by address":              {ours.CAFile, ours.Replica, "127.0.0.1", now, ""},
		"of another authority":    {theirs.CAFile, ours.Replica, "localhost", now, "is not accepted with the CA certificate " + theirs.CAFile},
		"expired":                 {ours.CAFile, ours.Replica, "localhost", now.Add(13 * time.Hour), "has expired at "},
		"expired long ago":        {ours.CAFile, ours.ServerExpired, "localhost", now, "has expired at "},
		"not valid yet":           {ours.CAFile, ours.Replica, "localhost", now.Add(-1000 * time.Hour), "is not valid before "},
		"for servers only":        {ours.CAFile, ours.Server, "localhost", now, "is not for servers and clients"},
		"for another name":        {ours.CAFile, ours.Replica, "10.0.0.1", now, "and the others reach this server at 10.0.0.1"},
		"without authority":       {"/none", ours.Replica, "localhost", now, "/none"},
		"without certificate":     {ours.CAFile, brokertest.Pair{CertFile: "/none", KeyFile: "/none"}, "localhost", now, "/none"},
		"key of another":          {ours.CAFile, brokertest.Pair{CertFile: ours.Replica.CertFile, KeyFile: theirs.Replica.KeyFile}, "localhost", now, "expected a PEM certificate and its"},
		"no certificate as root":  {ours.Replica.KeyFile, ours.Replica, "localhost", now, "no PEM certificate found"},
		"no key, but certificate": {ours.CAFile, brokertest.Pair{CertFile: ours.CAFile, KeyFile: ours.Replica.KeyFile}, "localhost", now, "expected a PEM certificate and its"},
	} {
		err := Mutual(&config.TLS{CAFile: tt.ca, CertFile: tt.pair.CertFile, KeyFile: tt.pair.KeyFile}, tt.host, tt.now)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
