package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"external-server/internal/cluster"
)

// SettingsError is why a server can not be a member: the cluster was made with something
// else.
type SettingsError struct {
	Key    string // where etcd has it
	Shards int    // of the cluster
	Own    int    // of the configuration
	Format int    // of what is written in etcd, when this program does not know it; else 0
}

func (e *SettingsError) Error() string {
	if e.Format != 0 {
		return fmt.Sprintf("the cluster was made by a program that writes format %d in etcd, and this one writes format %d; expected programs of the same version for all servers, or another cluster.name", e.Format, format)
	}
	return fmt.Sprintf(`the number of shards is %d, and the cluster was made with %d, which is fixed; set cluster.shards to %d. `+
		`To change it, end all servers of the cluster, delete the key %s in etcd, and start them with the new number: the cars' sessions end, and gateways connect anew`,
		e.Own, e.Shards, e.Shards, e.Key)
}

// NameError is why a server is no member yet: another process has its name.
type NameError struct {
	Name  string
	Other cluster.Member // zero: what has the name is no server
	Key   string
}

func (e *NameError) Error() string {
	if e.Other.Name == "" {
		return fmt.Sprintf("the key %s in etcd holds something that is no server; delete it", e.Key)
	}
	return fmt.Sprintf(`another server of the cluster has the name %q: process %d on %s, reached at %s. This one waits until that one has ended; give each server a "cluster.replica" of its own`,
		e.Name, e.Other.PID, shorten(e.Other.Host), shorten(e.Other.Address))
}

// agree compares what the cluster was made with and what is configured.
func (s *Store) agree(value []byte) error {
	var got settings
	if err := json.Unmarshal(value, &got); err != nil || got.Format < 1 || got.Shards < 1 {
		return fmt.Errorf("the key %s in etcd is not as this program writes it; expected %s: delete the key, a server of the cluster writes it again", s.keys.settings(), encode(settings{format, s.opts.Shards}))
	}
	if got.Format != format {
		return &SettingsError{Key: s.keys.settings(), Format: got.Format}
	}
	if got.Shards != s.opts.Shards {
		return &SettingsError{Key: s.keys.settings(), Shards: got.Shards, Own: s.opts.Shards}
	}
	return nil
}

// silence says no more than that etcd did not answer.
type silence struct {
	text  string
	cause error
}

func (e *silence) Error() string { return e.text }
func (e *silence) Unwrap() error { return e.cause }

// describe says what an error of the client means to an operator.
func describe(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return &silence{text: fmt.Sprintf("etcd does not answer within %v: %v", callTimeout, err), cause: err}
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("etcd refuses the user name or the password: %w", err)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd demands a user name and a password (cluster.username, cluster.password): %w", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("the user at etcd may not read and write below %s: %w", root, err)
	case status.Code(err) == codes.ResourceExhausted:
		return fmt.Errorf("etcd has more below the prefix of this cluster than servers write; delete what is not theirs: %w", err)
	case status.Code(err) == codes.Unavailable:
		text := strings.TrimPrefix(status.Convert(err).Message(), "connection error: desc = ")
		return &silence{text: "etcd cannot be reached: " + text, cause: err}
	}
	return fmt.Errorf("etcd: %w", err)
}
