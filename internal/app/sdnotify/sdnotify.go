// Package sdnotify tells the service manager about the state of the process: the
// protocol of systemd's sd_notify. It may not import anything of the project.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Variable names the environment variable with the manager's socket.
const Variable = "NOTIFY_SOCKET"

// States to send.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// Reloading says that the configuration is being read again; Ready ends it. The
// time lets the manager tell it from an earlier one.
func Reloading() []string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return []string{"RELOADING=1"}
	}
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)}
}

// Status is a text for people, shown by systemctl status: one line.
func Status(text string) string {
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

// Send sends states, one line each. Without a manager that listens it does
// nothing.
func Send(states ...string) error {
	path := os.Getenv(Variable)
	if path == "" {
		return nil
	}
	// A leading @ means an abstract socket to package net as well.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(states, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
