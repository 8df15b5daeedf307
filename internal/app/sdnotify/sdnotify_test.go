package sdnotify_test

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"external-server/internal/app/sdnotify"
	"external-server/internal/support/testwait"
)

// listen is a service manager at the address.
func listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv(sdnotify.Variable, name)
	if err := conn.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func read(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

func TestSend(t *testing.T) {
	for name, address := range map[string]string{
		"file":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@external-server-test-" + strings.ReplaceAll(filepath.Base(t.TempDir())+time.Now().Format("150405.000000000"), "/", "-"),
	} {
		t.Run(name, func(t *testing.T) {
			manager := listen(t, address)
			if err := sdnotify.Send(sdnotify.Ready, sdnotify.Status("3 cars\nadded")); err != nil {
				t.Fatal(err)
			}
			if got, want := read(t, manager), "READY=1\nSTATUS=3 cars added"; got != want {
				t.Errorf("the manager got %q, expected %q", got, want)
			}
			if err := sdnotify.Send(sdnotify.Reloading()...); err != nil {
				t.Fatal(err)
			}
			if got := read(t, manager); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]+$`).MatchString(got) {
				t.Errorf("the manager got %q", got)
			}
		})
	}
}

func TestNoManager(t *testing.T) {
	t.Setenv(sdnotify.Variable, "")
	if err := sdnotify.Send(sdnotify.Ready); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	t.Setenv(sdnotify.Variable, filepath.Join(t.TempDir(), "nobody"))
	if err := sdnotify.Send(sdnotify.Ready); err == nil {
		t.Error("a manager that is not there was told without an error")
	}
}
