package replica

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"external-server/internal/cluster/fence"
	"external-server/internal/session/record"
)

// body makes what a replica sends with a shard.
func body(epoch uint64, records ...[]byte) []byte {
	b := binary.AppendUvarint(nil, epoch)
	for _, r := range records {
		b = append(binary.AppendUvarint(b, uint64(len(r))), r...)
	}
	return b
}

// What is no shard that was handed over is refused as a whole.
func TestOfferIsRefused(t *testing.T) {
	good := record.Begin(nil, "company/car").Forgotten()
	of, err := parseOffer(body(7, good, good))
	if err != nil || of.epoch != 7 || len(of.records) != 2 {
		t.Errorf("%+v, %v", of, err)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"no epoch":          body(0, good),
		"epoch too large":   body(1<<63, good),
		"record cut off":    body(7, good)[:len(body(7, good))-1],
		"length too large":  append(body(7), 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01),
		"record of nothing": body(7, []byte{0xEE}),
	} {
		if _, err := parseOffer(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What its owner has taken back since, or has served under another epoch, is outdated.
func TestOfferIsOutdated(t *testing.T) {
	o := newOffers(1)
	for _, known := range []fence.Epoch{{Epoch: 8}, {Epoch: 7, TakenBack: 1}, {Epoch: 7}} {
		o.put(0, &offer{epoch: 7, at: time.Now()})
		want := known == fence.Epoch{Epoch: 7}
		if o.has(0, known) != want || (o.take(0, known) != nil) != want {
			t.Errorf("an offer of epoch 7 for %+v: taken %v", known, !want)
		}
	}
}

// How often the owner has taken the shard back is a number, or not said by a peer of an earlier version.
func TestOfferSaysHowOftenItWasTakenBack(t *testing.T) {
	for header, want := range map[string]int{"": http.StatusNoContent, "3": http.StatusNoContent, "often": http.StatusBadRequest, "9223372036854775808": http.StatusBadRequest} {
		r := &Replica{offers: newOffers(1)}
		req := httptest.NewRequest(http.MethodPost, "/v1/shards/0", bytes.NewReader(body(7)))
		req.Header.Set(takenBackHeader, header)
		w := httptest.NewRecorder()
		r.takeOffer(w, req, 0)
		if w.Code != want || (r.offers.all[0] != nil) != (want == http.StatusNoContent) {
			t.Errorf("%q: status %d, expected %d; offer %+v", header, w.Code, want, r.offers.all[0])
		}
	}
}

func FuzzParseOffer(f *testing.F) {
	good := record.Begin(nil, "company/car").Forgotten()
	f.Add(body(7, good, record.Begin(nil, "company/car").Delivered(5, 3)))
	f.Add(body(1))
	f.Add(body(1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		of, err := parseOffer(b)
		if err != nil {
			return
		}
		if of.epoch <= 0 || of.fold == nil {
			t.Errorf("%+v", of)
		}
		for _, name := range of.fold.Cars() {
			if known, err := of.fold.Car(name); err == nil && known == nil {
				t.Errorf("car %q is not known", name)
			}
		}
	})
}
