package e2e

import (
	"fmt"
	"testing"

	"external-server/internal/support/brokertest"
)

// An operator who starts the server with a wrong CA or client certificate and mends it in time
// costs no car its session, also when the server is killed in between: the sessions wait.
func TestWrongCertificateBetweenTwoProcesses(t *testing.T) {
	t.Parallel()
	k := keep(t, 3, exampleModule(t))
	certs, others := brokertest.NewCerts(t), brokertest.NewCerts(t)
	k.broker = brokertest.Start(t, defaults(t, fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\n",
		certs.CAFile, certs.Server.CertFile, certs.Server.KeyFile)))
	k.tls = certs.ClientConfig(&certs.Client)
	good := obj{"ca_certs_file": certs.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile}
	setBroker(k.config, k.broker, good)
	k.run()
	for _, bad := range []obj{
		{"ca_certs_file": others.CAFile, "cert_file": certs.Client.CertFile, "key_file": certs.Client.KeyFile},
		{"ca_certs_file": certs.CAFile, "cert_file": others.Client.CertFile, "key_file": others.Client.KeyFile},
	} {
		k.terminate()
		setBroker(k.config, k.broker, bad)
		k.start()
		k.server.WaitLog("no connection to the broker")
		k.server.Kill()
		k.start()
		k.server.WaitLog("no connection to the broker")
		k.terminate()
		setBroker(k.config, k.broker, good)
		k.again()
	}
	k.finishUnnoticed()
}
