package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"external-server/internal/cluster"
)

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
