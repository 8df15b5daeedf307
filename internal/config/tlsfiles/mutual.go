package tlsfiles

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"external-server/internal/config"
)

// Mutual tells why servers that have the same authority would refuse the certificate of
// these files at a time: as that of a server which they reach at the host, or as that of a client. Nil:
// they would not. The error names the file and what is expected.
func Mutual(files *config.TLS, host string, now time.Time) error {
	roots, err := readCA(files.CAFile)
	if err != nil {
		return err
	}
	pair, err := readPair(files.CertFile, files.KeyFile)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, raw := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(raw); err == nil { // one that others cannot read either
			between.AddCert(c)
		}
	}
	leaf := pair.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s has expired at %s; expected a new one", files.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s is not valid before %s; is the clock of this machine right?", files.CertFile, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
		if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
			return fmt.Errorf("certificate %s is not for servers and clients; expected both uses, because each server also asks the others (extended key usage serverAuth and clientAuth)", files.CertFile)
		}
		if err != nil {
			return fmt.Errorf("certificate %s is not accepted with the CA certificate %s, with which the others check it: %w", files.CertFile, files.CAFile, err)
		}
	}
	if leaf.VerifyHostname(host) != nil {
		names := leaf.DNSNames
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Errorf("certificate %s is for %s, and the others reach this server at %s; expected a certificate with that name", files.CertFile, strings.Join(names, ", "), host)
	}
	return nil
}
