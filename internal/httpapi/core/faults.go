package core

import (
	"log/slog"
	"net/http"
	"sync"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
)

// faultLog logs a fault of the store once until the same kind of operation has
// worked again, and turns it into the client's answer.
type faultLog struct {
	log    *slog.Logger
	mu     sync.Mutex
	now    map[string]store.Fault // by operation: the fault that was logged
	total  map[store.Fault]int64
	latest *httpapi.Error
}

func newFaultLog(log *slog.Logger) *faultLog {
	return &faultLog{log: log, now: map[string]store.Fault{}, total: map[store.Fault]int64{}}
}

func (f *faultLog) report(operation string, e *store.Error) *httpapi.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total[e.Fault]++
	f.latest = answerTo(e.Fault)
	if f.now[operation] != e.Fault {
		f.now[operation] = e.Fault
		f.log.Error("the message store of the HTTP API failed; service continues", "operation", operation, "fault", string(e.Fault), "error", e.Err, "hint", e.Fault.Hint())
	}
	return f.latest
}

func (f *faultLog) ok(operation string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault, was := f.now[operation]; was {
		delete(f.now, operation)
		f.log.Warn("the message store of the HTTP API works again", "operation", operation, "fault", string(fault))
	}
}

// lastError is the answer to give while the store is known to be lost.
func (f *faultLog) lastError() *httpapi.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.latest == nil {
		return httpapi.NewError(http.StatusServiceUnavailable, "the message store is not reachable; try again")
	}
	return f.latest
}

func (f *faultLog) counts() (map[store.Fault]int64, store.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := make(map[store.Fault]int64, len(f.total))
	for k, v := range f.total {
		total[k] = v
	}
	for _, fault := range f.now {
		return total, fault
	}
	return total, ""
}

// answerTo returns what a client gets to see: the fault, without the internals of the
// database.
func answerTo(fault store.Fault) *httpapi.Error {
	switch fault {
	case store.FaultMoved:
		return ErrMoved
	case store.FaultBusy:
		return httpapi.NewError(http.StatusServiceUnavailable, "the message store is locked by another program; try again")
	case store.FaultFull:
		return httpapi.NewError(http.StatusServiceUnavailable, "the message store has no space left; nothing was stored")
	case store.FaultReadOnly:
		return httpapi.NewError(http.StatusServiceUnavailable, "the message store cannot be written; nothing was stored")
	case store.FaultUnavailable:
		return httpapi.NewError(http.StatusServiceUnavailable, "the message store is not reachable; try again")
	case store.FaultCorrupt:
		return httpapi.NewError(http.StatusInternalServerError, "the message store is damaged; the operator must repair or replace it")
	}
	return httpapi.NewError(http.StatusInternalServerError, "the message store failed; the server's log tells why")
}
