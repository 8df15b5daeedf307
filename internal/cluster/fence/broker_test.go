package fence_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/support/brokertest"
)

// Everything works over TLS, with client certificates.
func TestOverTLS(t *testing.T) {
	certs := brokertest.NewCerts(t)
	m := brokertest.Start(t, brokertest.Options{Certs: certs})
	b := brokerAt(m.Address(), "a")
	b.TLS = func() (*tls.Config, error) { return certs.ClientConfig(&certs.Client), nil }
	seize(t, b, 7)
	a := serve(t, b, 7, nil)
	a.waitUp(1)
	a.carrier.Put(car, []byte("record"))
	a.port.Publish([]byte("x"), link.Ack{})
	if e, found, err := fence.Read(t.Context(), b, cluster, shard()); err != nil || !found || e.Epoch != 7 {
		t.Errorf("%+v %v %v", e, found, err)
	}
	waitRecord(t, b, "record")
	b.TLS = nil
	if _, _, err := fence.Read(t.Context(), b, cluster, shard()); err == nil || !strings.Contains(err.Error(), m.Address()) {
		t.Errorf("without TLS: %v", err)
	}
}

// An error names the broker and, when it is about one, the topic; and says what to do.
func TestErrorsNameTheirPlace(t *testing.T) {
	acl := "user server\ntopic readwrite other/#\nuser writer\ntopic write es/#\n"
	m := brokertest.Start(t, brokertest.Options{Username: "server", Password: "secret", Others: map[string]string{"writer": "secret"}, ACL: acl})
	writing := fence.Broker{Address: m.Address(), Member: "a", Username: "writer", Password: "secret"}
	refusing := fence.Broker{Address: m.Address(), Member: "a", Username: "server", Password: "secret"}
	open := brokertest.Start(t, brokertest.Options{})
	topic := fence.EpochTopic(cluster, 0)
	stranger := dial(t, open.Address())
	retain := func(topic, text string) {
		if err := stranger.Retain(topic, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	retain(fence.EpochTopic(cluster, 1), "hello")
	retain(fence.EpochTopic(cluster, 2), strings.Repeat("x", fence.MaxEpoch+1))
	retain(fence.EpochTopic(cluster, 3), `{"epoch":-4,"replica":"x"}`)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	read := func(b fence.Broker, shard int) error {
		_, _, err := fence.Read(t.Context(), b, cluster, shard)
		return err
	}
	if err := fence.Check(t.Context(), brokerAt(open.Address(), "a"), cluster); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for name, tc := range map[string]struct {
		err  error
		want []string
	}{
		"no right to publish": {seizing(t, refusing),
			[]string{m.Address(), topic, "allow the user of this server to read and write es/test/#"}},
		"no right to read": {fence.Check(t.Context(), writing, cluster), []string{m.Address(), "es/test/check/", "cannot be read", "read and write es/test/#"}},
		"no right at all":  {fence.Check(t.Context(), refusing, cluster), []string{m.Address(), "es/test/check/", "read and write es/test/#"}},
		"wrong password":   {read(fence.Broker{Address: m.Address(), Member: "a", Username: "server", Password: "wrong"}, 0), []string{m.Address(), "password"}},
		"no broker":        {read(brokerAt(brokertest.FreeAddress(t), "a"), 0), []string{"127.0.0.1:", "refused"}},
		"no epoch":         {read(brokerAt(open.Address(), "a"), 1), []string{open.Address(), fence.EpochTopic(cluster, 1), "publishing an empty retained one"}},
		"too long":         {read(brokerAt(open.Address(), "a"), 2), []string{open.Address(), fence.EpochTopic(cluster, 2), "is no epoch"}},
		"below 1":          {read(brokerAt(open.Address(), "a"), 3), []string{open.Address(), fence.EpochTopic(cluster, 3), "above 0"}},
		"silent": {func() error {
			_, _, err := fence.Read(short, brokerAt(silent.Addr().String(), "a"), cluster, 0)
			return err
		}(), []string{silent.Addr().String(), "not answered"}},
	} {
		for _, want := range tc.want {
			if tc.err == nil || !strings.Contains(tc.err.Error(), want) {
				t.Errorf("%s: the error %v does not say %q", name, tc.err, want)
			}
		}
		if tc.err != nil && (strings.Contains(tc.err.Error(), "secret") || strings.Contains(tc.err.Error(), "wrong")) {
			t.Errorf("%s: the error has the password: %v", name, tc.err)
		}
	}
}

// All records of a shard are read, more than a broker queues for one client; what strangers
// have left there is not.
func TestRecordsAreReadInParts(t *testing.T) {
	m := plainBroker(t)
	stranger := dial(t, m.Address())
	const cars = 3000
	for n := range cars {
		id := fleet.CarID{Company: "company", Car: fmt.Sprint("car", n)}
		if err := stranger.Send(fence.RecordTopic(cluster, 1, id), nil); err != nil { // no record
			t.Fatal(err)
		}
		if err := stranger.Retain(fence.RecordTopic(cluster, 1, id), []byte(id.Car)); err != nil {
			t.Fatal(err)
		}
	}
	one := fence.RecordTopic(cluster, 1, fleet.CarID{Company: "company", Car: "car1"})
	prefix, _, _ := strings.Cut(one, "/company/")
	for _, topic := range []string{prefix + "/company", prefix + "/company/UPPER", prefix + "/a/b/c", prefix, prefix + "/company/car2x" + strings.Repeat("y", 3000)} {
		if err := stranger.Retain(topic, []byte("stranger")); err != nil {
			t.Fatal(err)
		}
	}
	// A record of a car in a part to which it does not belong.
	for part := range 16 {
		if err := stranger.Retain(fmt.Sprintf("%s/%d/company/moved", strings.TrimSuffix(prefix, prefix[strings.LastIndex(prefix, "/"):]), part), []byte(fmt.Sprint(part))); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.Retain(fence.RecordTopic(cluster, 1, fleet.CarID{Company: "company", Car: "large"}), make([]byte, fence.MaxRecord+1)); err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	b := brokerAt(m.Address(), "a")
	b.Logger = slog.New(slog.NewTextHandler(log, nil))
	found, err := fence.Records(t.Context(), b, cluster, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != cars+1 { // and the moved one, at its place
		t.Errorf("%d records of %d cars", len(found), cars)
	}
	for id, record := range found {
		if string(record) != id.Car && id.Car != "moved" {
			t.Errorf("the record of %v is %q", id, record)
		}
	}
	moved := fleet.CarID{Company: "company", Car: "moved"}
	if topic := fence.RecordTopic(cluster, 1, moved); !strings.Contains(topic, "/cars/"+string(found[moved])+"/") {
		t.Errorf("the record of part %s was taken for the car of %s", found[moved], topic)
	}
	for _, why := range []string{"names no car", "a record has at most"} {
		if !strings.Contains(log.String(), why) {
			t.Errorf("the log does not say %q", why)
		}
	}
	if others, err := fence.Records(t.Context(), b, cluster, 2); err != nil || len(others) > 0 {
		t.Errorf("another shard has %d records, %v", len(others), err)
	}
}

// Clear leaves nothing of a shard.
func TestClear(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	b := brokerAt(m.Address(), "a")
	a := serve(t, b, 7, nil)
	a.waitUp(1)
	a.carrier.Put(car, []byte("record"))
	waitRecord(t, b, "record")
	a.stop()
	if err := fence.Clear(t.Context(), b, cluster, shard()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := fence.Read(t.Context(), b, cluster, shard()); found || err != nil {
		t.Errorf("the epoch is still there, %v", err)
	}
	if r, err := fence.Records(t.Context(), b, cluster, shard()); len(r) > 0 || err != nil {
		t.Errorf("%d records are still there, %v", len(r), err)
	}
}

func seizing(t *testing.T, b fence.Broker) error {
	_, err := fence.Seize(t.Context(), b, cluster, 0, fence.Epoch{Epoch: 1, Replica: "a"})
	return err
}
