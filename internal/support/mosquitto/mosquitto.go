// Package mosquitto runs the installed mosquitto, for tests and measurements.
package mosquitto

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"external-server/internal/support/tied"
)

// Names are where mosquitto is found: in the search path, or where packages put it beside
// the search path of users.
func Names() []string {
	return []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"}
}

// Process is a broker that runs. It ends with the program that has started it.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// Start runs the program with a configuration file and waits, a minute at most, until it accepts
// connections at the address. output, if not nil, gets what it writes.
func Start(path, configuration, address string, output io.Writer) (*Process, error) {
	p := &Process{cmd: exec.Command(path, "-c", configuration), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	wait, err := tied.Start(p.cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	go func() {
		_ = wait() // seen by those who wait for done
		close(p.done)
	}()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		select {
		case <-p.done:
			return nil, errors.New("mosquitto ended at once")
		case <-time.After(5 * time.Millisecond):
		}
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			return p, c.Close()
		}
	}
	p.Kill()
	return nil, errors.New("mosquitto does not accept connections")
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Path is the program that runs.
func (p *Process) Path() string { return p.cmd.Path }

// Signal sends a signal; it does not wait.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Ended tells how the process has ended; "" means that it runs.
func (p *Process) Ended() string {
	select {
	case <-p.done:
		return p.cmd.ProcessState.String()
	default:
		return ""
	}
}

// Kill ends the broker without a word, if it has not ended, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Wait waits for the end of the process.
func (p *Process) Wait() { <-p.done }
