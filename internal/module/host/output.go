package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine      = 2048 // bytes of one line of output that are kept
	linesPerSec  = 100  // lines logged per second and process
	tailLines    = 10   // last lines quoted when a process ends
	tailMaxBytes = 1500
)

// output turns what a module process writes into log lines and remembers the
// last ones.
type output struct {
	log *slog.Logger

	mu         sync.Mutex
	tail       []string
	total      int           // lines so far
	more       chan struct{} // closed with the next line, if not nil
	second     time.Time
	logged     int
	suppressed int
}

const (
	// lastWordsPause is the silence after which nothing more is expected of a process
	// that has ended, and lastWordsLimit bounds it all.
	lastWordsPause = 500 * time.Millisecond
	lastWordsLimit = 5 * time.Second
)

// lastWords reads a stream of a process. When the process has ended, the silence
// between two reads counts, not the time it all takes on a busy machine.
type lastWords struct {
	f    *os.File
	gone <-chan struct{} // closed when the process has ended
}

// Read implements io.Reader.
func (l *lastWords) Read(p []byte) (int, error) {
	select {
	case <-l.gone:
		if err := l.f.SetReadDeadline(time.Now().Add(lastWordsPause)); err != nil {
			return 0, err
		}
	default:
	}
	return l.f.Read(p)
}

// read logs the lines of one stream until it ends.
func (o *output) read(stream string, r io.Reader) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		text := strings.TrimRight(string(line), "\r\n")
		if errors.Is(err, bufio.ErrBufferFull) {
			text += " ... (cut)"
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		}
		if text != "" {
			o.line(stream, printable(text), time.Now())
		}
		if err != nil {
			o.flush()
			return
		}
	}
}

func (o *output) line(stream, text string, now time.Time) {
	o.mu.Lock()
	if len(o.tail) == tailLines {
		o.tail = append(o.tail[:0], o.tail[1:]...)
	}
	o.tail = append(o.tail, text)
	o.total++
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	suppressed := 0
	if now.Sub(o.second) >= time.Second {
		suppressed = o.suppressed
		o.second, o.logged, o.suppressed = now, 0, 0
	}
	o.logged++
	over := o.logged > linesPerSec
	if over {
		o.suppressed++
	}
	o.mu.Unlock()
	o.reportSuppressed(suppressed)
	if !over {
		o.log.Log(context.Background(), levelOf(text), "module output: "+text, "stream", stream)
	}
}

// levelOf returns the level of a line in the form in which module-host and modules in
// Go log, so that a warning of theirs is one here; other lines are information.
func levelOf(text string) slog.Level {
	switch head, _, _ := strings.Cut(text, " msg="); {
	case head == text:
	case strings.HasSuffix(head, "level=ERROR"):
		return slog.LevelError
	case strings.HasSuffix(head, "level=WARN"):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func (o *output) flush() {
	o.mu.Lock()
	suppressed := o.suppressed
	o.suppressed = 0
	o.mu.Unlock()
	o.reportSuppressed(suppressed)
}

func (o *output) reportSuppressed(lines int) {
	if lines > 0 {
		o.log.Warn("the module writes more than is logged", "lines_dropped", lines, "limit_per_second", linesPerSec)
	}
}

// count returns how many lines were written so far.
func (o *output) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// since returns the last lines of those written after the first n. It waits a
// moment for the first: an answer may overtake what was printed before it. The moment
// has several parts, so that a machine that stood still for it all does not end it.
func (o *output) since(ctx context.Context, n int) string {
	const patience, parts = 10 * time.Millisecond, 10
	o.mu.Lock()
	defer o.mu.Unlock()
	for part := 0; part < parts && o.total == n && ctx.Err() == nil; part++ {
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more, timer := o.more, time.NewTimer(patience)
		o.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		o.mu.Lock()
	}
	return joined(o.tail[len(o.tail)-min(o.total-n, len(o.tail)):])
}

// last returns the last lines, joined and bounded, or "".
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return joined(o.tail)
}

func joined(lines []string) string {
	text := strings.Join(lines, " | ")
	if over := len(text) - tailMaxBytes; over > 0 {
		text = "..." + strings.ToValidUTF8(text[over:], "")
	}
	return text
}

// printable keeps control characters and broken UTF-8 out of the log.
func printable(text string) string {
	clean := func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}
	return strings.Map(clean, text)
}
