package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// mosquitto is a broker that a benchmark has started.
type mosquitto struct {
	address string
	dir     string
	cmd     *exec.Cmd
	done    chan struct{}
}

// startMosquitto runs the installed mosquitto on a free loopback port, with queues
// without bound, because ten thousand cars share few connections, and without
// Nagle's delay.
func startMosquitto() (*mosquitto, error) {
	dir, err := os.MkdirTemp("", "external-server-bench-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	m := &mosquitto{address: l.Addr().String(), dir: dir}
	if err := l.Close(); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\npersistence false\nlog_type none\n", port)
	if os.Geteuid() == 0 {
		text += "user root\n" // it could not read this file otherwise
	}
	if err := os.WriteFile(filepath.Join(dir, "mosquitto.conf"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := m.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return m, nil
}

func (m *mosquitto) start() error {
	path := ""
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return errors.New("mosquitto is not installed: on Debian, apt-get install mosquitto; or give --broker, or neither to use the embedded broker")
	}
	m.cmd = exec.Command(path, "-c", filepath.Join(m.dir, "mosquitto.conf"))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait() // seen by those who wait for done
		close(done)
	}(m.cmd, m.done)
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		select {
		case <-m.done:
			return errors.New("mosquitto ended at once")
		case <-time.After(5 * time.Millisecond):
		}
		if c, err := net.DialTimeout("tcp", m.address, time.Second); err == nil {
			return c.Close()
		}
	}
	return errors.New("mosquitto does not accept connections")
}

// kill ends the broker without a word.
func (m *mosquitto) kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.done
}

func (m *mosquitto) stop() {
	m.kill()
	_ = os.RemoveAll(m.dir)
}
