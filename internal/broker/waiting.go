package broker

import (
	"container/list"
	"log/slog"
	"sync"
	"time"
)

const (
	// maxStrangers bounds the connections that have not introduced themselves. Beyond
	// it, no further one is accepted until one of them has, or has been there for
	// strangerGrace: then the oldest one has to go.
	maxStrangers  = 1024
	strangerGrace = 2 * time.Second
)

// waitingRoom holds the clients that have not introduced themselves.
type waitingRoom struct {
	most  int
	grace time.Duration

	mu    sync.Mutex
	queue list.List     // of *stranger, the oldest first
	left  chan struct{} // capacity 1: there may be room
}

type stranger struct {
	c     *conn
	since time.Time
}

func newWaitingRoom() *waitingRoom {
	return &waitingRoom{most: maxStrangers, grace: strangerGrace, left: make(chan struct{}, 1)}
}

// await returns when there is room for one more, or when closed is closed.
func (w *waitingRoom) await(closed <-chan struct{}) {
	for {
		wait := w.makeRoom(time.Now())
		if wait == 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-w.left:
		case <-timer.C:
		case <-closed:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// makeRoom returns 0 when there is room, or how long it takes until the oldest client
// has to go.
func (w *waitingRoom) makeRoom(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue.Len() < w.most {
		return 0
	}
	oldest := w.queue.Front()
	s := oldest.Value.(*stranger)
	if wait := w.grace - now.Sub(s.since); wait > 0 {
		return wait
	}
	w.queue.Remove(oldest)
	b := s.c.broker
	b.limit.Log(b.log, slog.LevelWarn, "embedded broker ends a connection that has not introduced itself: too many of them are waiting",
		slog.Int("limit", w.most), slog.String("remote", s.c.RemoteAddr().String()))
	s.c.Close()
	return 0
}

// enter adds a client; the result removes it, once.
func (w *waitingRoom) enter(c *conn) (leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.queue.PushBack(&stranger{c: c, since: time.Now()})
	return sync.OnceFunc(func() {
		w.mu.Lock()
		w.queue.Remove(e) // nothing, if makeRoom has
		w.mu.Unlock()
		select {
		case w.left <- struct{}{}:
		default:
		}
	})
}
