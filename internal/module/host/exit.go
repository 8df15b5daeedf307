package host

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fleet-protocol/external-server/sdk/boundary"
)

// Exit says how and during what a module process ended.
type Exit struct {
	PID int
	// Reason is short: a signal name, an exit code, or why the server ended it.
	Reason string
	// Calls names calls that were under way, Output the last lines written.
	Calls  string
	Output string
}

// Error puts all of it into one line.
func (e *Exit) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the module process (pid %d) ended: %s", e.PID, e.Reason)
	if e.Calls != "" {
		fmt.Fprintf(&b, "; under way: %s", e.Calls)
	}
	if e.Output != "" {
		fmt.Fprintf(&b, "; last output: %s", e.Output)
	}
	return b.String()
}

func newExit(c *child, status syscall.WaitStatus, calls string) *Exit {
	return &Exit{PID: c.pid, Reason: reason(c.cause, status), Calls: calls, Output: c.output.last()}
}

// reason prefers what the process did to what was done to it: a broken
// connection is what a crash looks like from here.
func reason(cause error, status syscall.WaitStatus) string {
	var own string
	killed := false
	switch {
	case status.Signaled():
		killed = status.Signal() == syscall.SIGKILL
		own = fmt.Sprintf("%s (%s)", unix.SignalName(status.Signal()), status.Signal())
		if status.CoreDump() {
			own += ", core dumped"
		}
	default:
		own = fmt.Sprintf("exit code %d", status.ExitStatus())
	}
	if cause != nil && killed {
		return cause.Error()
	}
	return own
}

func isFrameError(err error) bool { return errors.Is(err, boundary.ErrFrame) }

// underWay names some of the calls that were under way when a process ended:
// one of them is the likely culprit.
func underWay(left map[uint64]*pending) string {
	const most = 4
	var names []string
	more := 0
	for _, p := range left {
		switch {
		case p.limit == 0 || p.op == opPoll && !p.fetching || p.car == "" || p.behind:
		case len(names) < most:
			names = append(names, p.what())
		default:
			more++
		}
	}
	text := strings.Join(names, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
