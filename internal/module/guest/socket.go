package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"external-server/internal/module/wire"
)

// Socket returns the connection to the server that started this process.
func Socket() (*os.File, error) {
	if os.Getenv(wire.EnvFD) == "" || os.Getenv(wire.EnvProtocol) == "" {
		return nil, errors.New("this program is started by external-server, which gives it a connection; " +
			"to try a module, run: external-server module check")
	}
	if got := os.Getenv(wire.EnvFD); got != fmt.Sprint(wire.FD) {
		return nil, fmt.Errorf("%s is %q, expected %d", wire.EnvFD, got, wire.FD)
	}
	syscall.CloseOnExec(wire.FD)
	return os.NewFile(wire.FD, "server"), nil
}

type redeliveredKey struct{}

// Redelivered tells a call that the module may have seen before: the process it
// was given to ended without answering.
func Redelivered(ctx context.Context) bool { return ctx.Value(redeliveredKey{}) != nil }
