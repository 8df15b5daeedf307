// Package tied starts processes that end with the program that has started them, also when
// that one is killed. It is for tests and measurements, and imports nothing of the project.
package tied

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Start starts the command, as exec.Cmd.Start does, and lets it get the signal when this
// program ends. The caller must call wait, which is the command's Wait, in the end.
//
// The kernel sends the signal when the thread ends that has started the process (prctl(2),
// PR_SET_PDEATHSIG), and Go ends the thread of a goroutine that ends while it is locked to it.
// The command is therefore started by a thread that does nothing else until wait returns, and
// that then goes on living.
func Start(cmd *exec.Cmd, death syscall.Signal) (wait func() error, err error) {
	attributes := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attributes = *cmd.SysProcAttr
	}
	attributes.Pdeathsig = death
	cmd.SysProcAttr = &attributes
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-ended
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return sync.OnceValue(func() error {
		defer close(ended)
		return cmd.Wait()
	}), nil
}
