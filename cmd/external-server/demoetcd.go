package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// etcdVariable is the environment variable with the path of etcd.
const etcdVariable = "ETCD_SERVER"

// findEtcd returns the path of etcd: what the variable says, what `make etcd` has built, or
// what is installed; "" if there is none.
func findEtcd() string {
	if path := os.Getenv(etcdVariable); path != "" {
		return path
	}
	if self, err := os.Executable(); err == nil {
		for _, place := range []string{"etcd", "../build/etcd"} {
			path := filepath.Join(filepath.Dir(self), place)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	path, _ := exec.LookPath("etcd") // "": there is none
	return path
}

// newDemoEtcdCommand runs etcd for as long as the standard input is open.
func newDemoEtcdCommand() *cobra.Command {
	var program, data, client, peer string
	cmd := &cobra.Command{
		Use:  "etcd",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, end := untilInputEnds(cmd)
			defer end()
			return runEtcd(ctx, cmd, exec.Command(program,
				"--data-dir", data, "--log-level", "error", "--unsafe-no-fsync",
				"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client,
				"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer), client)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&program, "program", "etcd", "path of etcd")
	fs.StringVar(&data, "data", "", "its directory")
	fs.StringVar(&client, "client", "", "where it listens for clients")
	fs.StringVar(&peer, "peer", "", "where it listens for other members")
	return cmd
}

// etcdTimeout bounds start and end of etcd.
const etcdTimeout = 20 * time.Second

func runEtcd(ctx context.Context, cmd *cobra.Command, etcd *exec.Cmd, client string) error {
	var said bytes.Buffer // errors, of which its end causes some
	etcd.Stderr = &said
	etcd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ETCD_") }) // it takes them for settings
	if err := etcd.Start(); err != nil {
		return fmt.Errorf("etcd does not start: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- etcd.Wait() }()
	late := time.After(etcdTimeout)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for up := false; ; {
		select {
		case <-look.C:
			if !up && accepts(client) {
				up = true
				late = nil
				tellReady(cmd)
			}
		case err := <-ended:
			return fmt.Errorf("etcd has ended (%v): %s", err, bytes.TrimSpace(said.Bytes()))
		case <-late:
			_ = etcd.Process.Kill()
			<-ended
			return fmt.Errorf("etcd does not serve after %v: %s", etcdTimeout, bytes.TrimSpace(said.Bytes()))
		case <-ctx.Done():
			_ = etcd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
			case <-time.After(etcdTimeout):
				_ = etcd.Process.Kill()
				<-ended
			}
			return nil
		}
	}
}

// accepts tells whether somebody listens at the address.
func accepts(address string) bool {
	nc, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	return nc.Close() == nil
}
