package deploytest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testwait"
	"external-server/internal/support/tied"
)

// container runs commands as the image would: in its folders, with its
// environment, as its user.
type container struct {
	t       *testing.T
	root    string
	workdir string
	env     []string
}

func newContainer(t *testing.T, b *builder, s stage) *container {
	t.Helper()
	c := &container{t: t, root: b.roots[s.name], env: []string{"PATH=" + b.in(s.name, "/usr/local/bin") + ":/usr/bin:/bin", "HOME=/nonexistent"}}
	c.workdir = b.in(s.name, ".")
	for _, i := range s.all("ENV") {
		key, value, _ := strings.Cut(i.text, "=")
		c.env = append(c.env, key+"="+c.path(value))
	}
	return c
}

// path returns where an absolute path of the image is; other text stays.
func (c *container) path(text string) string {
	if file, ok := strings.CutPrefix(text, "sqlite:"); ok {
		return "sqlite:" + c.path(file)
	}
	if filepath.IsAbs(text) {
		return filepath.Join(c.root, text)
	}
	return text
}

// rewrite makes a configuration of the image usable here: its paths are below
// the root, and change sets what is different outside a container.
func (c *container) rewrite(file string, change func(config map[string]any)) {
	c.t.Helper()
	path := c.path(file)
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		c.t.Fatal(err)
	}
	c.walk(config)
	change(config)
	servertest.WriteConfig(c.t, path, config)
	if err := os.Chmod(path, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) walk(value map[string]any) {
	for key, v := range value {
		switch v := v.(type) {
		case string:
			value[key] = c.path(v)
		case map[string]any:
			c.walk(v)
		case []any:
			for _, item := range v {
				if item, ok := item.(map[string]any); ok {
					c.walk(item)
				}
			}
		}
	}
}

func (c *container) command(argv []string) *exec.Cmd {
	args := make([]string, len(argv))
	for i, a := range argv {
		args[i] = c.path(a)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = c.workdir, c.env
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	return cmd
}

// run runs a command to its end and returns what it printed and its exit code.
func (c *container) run(argv ...string) (stdout, all string, code int) {
	c.t.Helper()
	cmd := c.command(argv)
	var out, both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &both
	wait, err := tied.Start(cmd, syscall.SIGKILL)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := wait(); err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return out.String(), out.String() + both.String(), cmd.ProcessState.ExitCode()
}

// process is the main process of a container.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	text bytes.Buffer
}

// Write collects what the process prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// start runs the main process until the test ends.
func (c *container) start(argv ...string) *process {
	c.t.Helper()
	p := &process{t: c.t, cmd: c.command(argv), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	wait, err := tied.Start(p.cmd, syscall.SIGKILL)
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		_ = wait()
		close(p.done)
	}()
	c.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if c.t.Failed() {
			c.t.Logf("output of the container:\n%s", p.output())
		}
	})
	return p
}

func (p *process) waitLog(text string) {
	p.t.Helper()
	testwait.Until(p.t, "the container logs "+strconv.Quote(text), func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("the container ended:\n%s", p.output())
		default:
		}
		return strings.Contains(p.output(), text)
	})
}

// stop sends the stop signal and returns the exit code; an engine would kill
// what does not end within the grace period.
func (p *process) stop(grace time.Duration) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(grace):
		p.t.Fatalf("the container did not stop within %v:\n%s", grace, p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}
