package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueued bounds what waits for one destination, in bytes; as much again may
// be under way.
const maxQueued = 4 << 20

// maxSpare is the largest buffer kept for reuse after a burst, in bytes.
const maxSpare = 256 << 10

// retryInterval is the pause after a failed write.
const retryInterval = time.Second

// output writes whole lines. It returns how many bytes it wrote; after an error
// the rest is offered again.
type output interface {
	write(lines []byte) (int, error)
	close() error
}

// reporter is what a sink says about itself.
type reporter struct {
	name      string
	dropped   func(lines uint64) []byte // the line that stands for dropped ones
	failing   func(error)               // at the first of several failures
	recovered func()
}

// sink is the bounded queue and the goroutine in front of one output.
type sink struct {
	out    output
	report reporter
	lost   atomic.Uint64         // lines
	fault  atomic.Pointer[error] // of the last attempt to write; nil: it succeeded

	mu      sync.Mutex
	queued  []byte // whole lines
	dropped uint64 // lines that found the queue full since it was taken last
	waiters []chan struct{}
	closed  bool

	wake  chan struct{} // capacity 1
	stop  chan struct{} // closed by close
	ended chan struct{} // closed when run has returned
	err   error         // what run could not write; valid once ended is closed
}

func newSink(out output, report reporter) *sink {
	return &sink{out: out, report: report, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
}

// enqueue queues a copy of one line. It never blocks for longer than another enqueue or
// an exchange of buffers takes.
func (s *sink) enqueue(line []byte) {
	s.mu.Lock()
	switch {
	case s.closed:
		s.lost.Add(1)
	case len(s.queued)+len(line) > maxQueued:
		s.dropped++
		s.lost.Add(1)
	default:
		s.queued = append(s.queued, line...)
	}
	s.mu.Unlock()
	s.signal()
}

func (s *sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drain exchanges the queue with an empty buffer. When nothing is queued, it
// returns those who wait for that.
func (s *sink) drain(empty []byte) (lines []byte, waiters []chan struct{}) {
	s.mu.Lock()
	lines, s.queued = s.queued, empty
	dropped := s.dropped
	s.dropped = 0
	if len(lines) == 0 {
		waiters, s.waiters = s.waiters, nil
	}
	s.mu.Unlock()
	if dropped > 0 {
		lines = append(lines, s.report.dropped(dropped)...)
	}
	return lines, waiters
}

// run writes until close was called and the queue is empty or cannot be
// written.
func (s *sink) run() {
	defer close(s.ended)
	var buffer []byte
	for failing := false; ; {
		lines, waiters := s.drain(buffer[:0])
		if len(lines) == 0 {
			buffer = lines
			for _, w := range waiters {
				close(w)
			}
			select {
			case <-s.wake:
				continue
			case <-s.stop:
			}
			if s.empty() {
				s.err = s.out.close()
				return
			}
			continue
		}
		for rest := lines; len(rest) > 0; {
			stopping := s.stopping() // the last attempt begins after it
			n, err := s.out.write(rest)
			rest = rest[n:]
			if err != nil {
				s.fault.Store(&err)
				if !failing {
					failing = true
					s.report.failing(err)
				}
				if stopping {
					s.giveUp(rest, err)
					return
				}
				s.pause()
				continue
			}
			if failing {
				failing = false
				s.fault.Store(nil)
				s.report.recovered()
			}
		}
		if buffer = lines; cap(buffer) > maxSpare {
			buffer = nil
		}
	}
}

func (s *sink) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queued) == 0 && s.dropped == 0
}

func (s *sink) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *sink) pause() {
	timer := time.NewTimer(retryInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stop:
	}
}

// giveUp counts what was not written at the end.
func (s *sink) giveUp(rest []byte, cause error) {
	queued, _ := s.drain(nil)
	n := bytes.Count(rest, []byte{'\n'}) + bytes.Count(queued, []byte{'\n'})
	s.lost.Add(uint64(n))
	s.err = fmt.Errorf("%s: %d log lines were not written: %w", s.report.name, n, cause)
	_ = s.out.close() // the cause is reported already
}

// flush waits until the queue was written.
func (s *sink) flush(ctx context.Context) error {
	written := make(chan struct{})
	s.mu.Lock()
	s.waiters = append(s.waiters, written)
	s.mu.Unlock()
	s.signal()
	select {
	case <-written:
		return nil
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%s: log lines wait to be written: %w", s.report.name, ctx.Err())
	}
}

// close ends the sink; a destination that does not take its lines before ctx
// ends is left behind with its goroutine.
func (s *sink) close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	select {
	case <-s.ended:
		return s.err
	default:
	}
	select {
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%s does not take the last log lines; they are lost", s.report.name)
	}
}

// plainWriter is the output of the console. It does not close what it was given.
type plainWriter struct{ io.Writer }

func (w plainWriter) write(lines []byte) (int, error) { return w.Write(lines) }
func (plainWriter) close() error                      { return nil }
