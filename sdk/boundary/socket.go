package boundary

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Socket returns the connection to the server that started this process.
func Socket() (*os.File, error) {
	if os.Getenv(EnvFD) == "" || os.Getenv(EnvProtocol) == "" {
		return nil, errors.New("this program is started by external-server, which gives it a connection; " +
			"to try a module, run: external-server module check")
	}
	if got := os.Getenv(EnvFD); got != fmt.Sprint(FD) {
		return nil, fmt.Errorf("%s is %q, expected %d", EnvFD, got, FD)
	}
	syscall.CloseOnExec(FD)
	return os.NewFile(FD, "server"), nil
}
