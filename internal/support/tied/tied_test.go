package tied

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/testchild"
	"external-server/internal/support/testwait"
)

func TestMain(m *testing.M) {
	testchild.Run(func(string) error {
		cmd := exec.Command("sleep", "600")
		if _, err := Start(cmd, syscall.SIGKILL); err != nil {
			return err
		}
		os.Stdout.WriteString(strconv.Itoa(cmd.Process.Pid) + "\n")
		testchild.UntilKilled()
		return nil
	})
	os.Exit(m.Run())
}

// A process must survive the threads that end in the program, and goroutines that are locked to
// their threads and end are what ends them.
func TestThreadsThatEnd(t *testing.T) {
	var all []func() error
	var inputs []io.Closer
	var outputs []*bufio.Reader
	for range 20 {
		started := make(chan struct{})
		go func() { // on whatever thread runs it
			defer close(started)
			cmd := exec.Command("cat")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Error(err)
				return
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Error(err)
				return
			}
			wait, err := Start(cmd, syscall.SIGKILL)
			if err != nil {
				t.Error(err)
				return
			}
			all, inputs, outputs = append(all, wait), append(inputs, in), append(outputs, bufio.NewReader(out))
		}()
		<-started
		ended := make(chan struct{})
		for range 10 {
			go func() {
				runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
				ended <- struct{}{}
			}()
		}
		for range 10 {
			<-ended
		}
	}
	for i, wait := range all {
		if err := inputs[i].Close(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(outputs[i]); err != nil {
			t.Error(err)
		}
		if err := wait(); err != nil {
			t.Errorf("process %d of %d: %v, expected that it ends with its input", i+1, len(all), err)
		}
	}
}

// A killed program takes its processes with it.
func TestProgramThatIsKilled(t *testing.T) {
	child := testchild.Start(t, t.TempDir())
	line, ok := child.Line()
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if !ok || err != nil {
		t.Fatalf("the child said %q", line)
	}
	child.Kill()
	for _, more := child.Line(); more; _, more = child.Line() {
	}
	child.WaitKilled()
	testwait.Until(t, "the process of the killed program has ended", func() bool {
		state, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}

func TestCommandThatDoesNotExist(t *testing.T) {
	if _, err := Start(exec.Command("/nonexistent"), syscall.SIGKILL); err == nil {
		t.Error("started")
	}
}
