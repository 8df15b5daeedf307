package deploytest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"external-server/internal/support/servertest"
)

// user is the number the image runs as, for user and group.
const user = 10001

// builder does in plain folders what the stages of the Dockerfile say.
type builder struct {
	t       *testing.T
	context string            // what is sent to the engine: the project less .dockerignore
	roots   map[string]string // the root folder of each stage by name; the last one has none
	env     map[string]map[string]string
	workdir map[string]string
}

// build makes all stages and returns the last one's root folder.
func build(t *testing.T, stages []stage) (*builder, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "external-server-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // the user of the image must get in
		t.Fatal(err)
	}
	b := &builder{t: t, context: filepath.Join(dir, "context"), roots: make(map[string]string),
		env: make(map[string]map[string]string), workdir: make(map[string]string)}
	copyTree(t, servertest.Root(), b.context, ignored(t))
	for _, s := range stages {
		root := filepath.Join(dir, "stage-"+s.name)
		b.roots[s.name] = root
		b.env[s.name] = make(map[string]string)
		b.workdir[s.name] = "/"
		b.mkdir(root)
		for _, i := range s.steps {
			b.step(s.name, i)
		}
	}
	return b, b.roots[stages[len(stages)-1].name]
}

func (b *builder) mkdir(path string) {
	b.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// in returns where a path of the stage is.
func (b *builder) in(stage, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.workdir[stage], path)
	}
	return filepath.Join(b.roots[stage], path)
}

func (b *builder) step(stage string, i instruction) {
	b.t.Helper()
	switch i.name {
	case "ARG", "ENV":
		key, value, _ := strings.Cut(i.text, "=")
		b.env[stage][key] = expand(strings.Trim(value, `"`), b.env[stage])
	case "WORKDIR":
		b.workdir[stage] = i.text
		b.mkdir(b.in(stage, i.text))
	case "COPY":
		b.copy(stage, i)
	case "RUN":
		for _, command := range strings.Split(i.text, "&&") {
			b.run(stage, strings.TrimSpace(command))
		}
	case "LABEL", "EXPOSE", "VOLUME", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD":
	default:
		b.t.Fatalf("the test does not know the instruction %s %s", i.name, i.text)
	}
}

func (b *builder) copy(stage string, i instruction) {
	b.t.Helper()
	words := i.words(b.t)
	to := words[len(words)-1]
	target := b.in(stage, to)
	for _, from := range words[:len(words)-1] {
		source := filepath.Join(b.context, from)
		if other := i.flags["from"]; other != "" {
			if b.roots[other] == "" {
				b.t.Fatalf("COPY --from=%s: there is no such stage before it", other)
			}
			source = b.in(other, from)
		}
		info, err := os.Stat(source)
		if err != nil {
			b.t.Fatalf("COPY %s: %v", i.text, err)
		}
		if info.IsDir() {
			copyTree(b.t, source, target, nil)
			continue
		}
		if !strings.HasSuffix(to, "/") {
			b.t.Fatalf("COPY %s: end the target folder with a slash", i.text)
		}
		b.mkdir(target)
		if err := copyFile(source, filepath.Join(target, filepath.Base(source)), info.Mode()); err != nil {
			b.t.Fatalf("COPY %s: %v", i.text, err)
		}
	}
}

// run runs a command of a stage. What changes the distribution cannot be done
// here; everything else can.
func (b *builder) run(stage, command string) {
	b.t.Helper()
	command = expand(command, b.env[stage])
	words := strings.Fields(command)
	switch words[0] {
	case "apt-get", "useradd":
		return
	case "rm":
		if command != "rm -rf /var/lib/apt/lists/*" {
			b.t.Fatalf("the test does not know %q", command)
		}
		return
	case "install":
		b.install(stage, words)
		return
	}
	for _, w := range words {
		if filepath.IsAbs(w) {
			b.t.Fatalf("RUN %s: use paths relative to WORKDIR, so that the test can run it", command)
		}
	}
	cmd := exec.Command("/bin/sh", "-ec", command)
	cmd.Dir = b.in(stage, ".")
	cmd.Env = os.Environ()
	for key, value := range b.env[stage] {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("RUN %s: %v\n%s", command, err, out)
	}
}

// install makes folders of the image, owned as it says if we may.
func (b *builder) install(stage string, words []string) {
	b.t.Helper()
	args := []string{}
	for n := 1; n < len(words); n++ {
		switch {
		case words[n] == "-o", words[n] == "-g":
			if os.Geteuid() == 0 {
				args = append(args, words[n], words[n+1])
			}
			n++
		case filepath.IsAbs(words[n]):
			args = append(args, b.in(stage, words[n]))
		default:
			args = append(args, words[n])
		}
	}
	if out, err := exec.Command("install", args...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

// ignored returns what .dockerignore keeps from the engine, by slash path.
func ignored(t *testing.T) func(string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(servertest.Root(), ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	patterns := strings.Fields(string(text))
	for _, p := range patterns {
		name, anywhere := strings.CutPrefix(p, "**/")
		if strings.ContainsAny(p, "!?[\\#") || strings.Contains(name, "/") || !anywhere && strings.Contains(p, "*") {
			t.Fatalf(".dockerignore: the test does not know the pattern %q", p)
		}
	}
	return func(path string) bool {
		for _, p := range patterns {
			if name, anywhere := strings.CutPrefix(p, "**/"); anywhere {
				if ok, _ := filepath.Match(name, filepath.Base(path)); ok {
					return true
				}
			} else if path == p {
				return true
			}
		}
		return false
	}
}

// copyTree copies a folder; what skip says stays behind.
func copyTree(t *testing.T, from, to string, skip func(string) bool) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) (fault error) {
		defer func() {
			if errors.Is(fault, fs.ErrNotExist) { // other tests make and remove files in the project meanwhile
				fault = nil
			}
		}()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if skip != nil && skip(relative) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		target := filepath.Join(to, relative)
		info, err := entry.Info()
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case entry.Type().IsRegular():
			return copyFile(path, target, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(from, to string, mode fs.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock() // as servertest.WriteProgram
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(to, content, mode.Perm())
}
