package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"external-server/internal/lab/freeport"
	support "external-server/internal/support/mosquitto"
)

// mosquitto is a broker that a benchmark has started.
type mosquitto struct {
	address string
	dir     string
	process *support.Process
}

// startMosquitto runs the installed mosquitto on a free loopback port, with queues
// without bound, because ten thousand cars share few connections, and without
// Nagle's delay.
func startMosquitto() (*mosquitto, error) {
	dir, err := os.MkdirTemp("", "external-server-bench-")
	if err != nil {
		return nil, err
	}
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	m := &mosquitto{address: address, dir: dir}
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\npersistence false\nlog_type none\n", port)
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

func (m *mosquitto) start() (err error) {
	path := ""
	for _, name := range support.Names() {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		return errors.New("mosquitto is not installed: on Debian, apt-get install mosquitto; or give --broker, or neither to use the embedded broker")
	}
	m.process, err = support.Start(path, filepath.Join(m.dir, "mosquitto.conf"), m.address, nil)
	return err
}

// kill ends the broker without a word.
func (m *mosquitto) kill() {
	m.process.Kill()
}

func (m *mosquitto) stop() {
	m.kill()
	_ = os.RemoveAll(m.dir)
}
