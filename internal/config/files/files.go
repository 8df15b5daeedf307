// Package files tells whether the files and directories that a configuration names can
// be used. It says why not in words for a person, and never what a file of a secret
// holds. It opens nothing but what it is asked about.
package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"external-server/internal/config/document"
)

// Checker answers questions about the file system, each path once: thousands of
// cars may name the same library. It belongs to one goroutine.
type Checker struct {
	Skip  bool // nothing is looked at and everything is well: the files are elsewhere
	known map[string]string
}

func (f *Checker) ask(question, path string, check func(string) string) string {
	if f.Skip {
		return ""
	}
	key := question + path
	if answer, ok := f.known[key]; ok {
		return answer
	}
	if f.known == nil {
		f.known = make(map[string]string)
	}
	answer := check(path)
	f.known[key] = answer
	return answer
}

// Library returns why path cannot be a module library, or "".
func (f *Checker) Library(path string) string {
	return f.ask("library ", path, func(path string) string {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Sprintf("%s%s; expected the path of a module library", Reason(path, err), relative(path))
		case !info.Mode().IsRegular():
			return fmt.Sprintf("%s is not a file; expected the path of a module library", document.Quote(path))
		}
		return ""
	})
}

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 4096

// Secret returns what a file of one secret holds, without the white space around it,
// or why it cannot be used.
func (f *Checker) Secret(path string) (text, problem string) {
	if f.Skip {
		return "", ""
	}
	const expected = "; expected a file with the token alone"
	file, err := os.Open(path)
	if err != nil {
		return "", Reason(path, err) + relative(path) + expected
	}
	defer func() { _ = file.Close() }() // nothing was written
	content, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	text = strings.TrimSpace(string(content))
	switch {
	case err != nil:
		return "", Reason(path, err) + expected
	case len(content) > maxSecret || strings.ContainsAny(text, " \t\r\n"):
		return "", document.Quote(path) + " holds more than one word" + expected
	case text == "":
		return "", document.Quote(path) + " is empty" + expected
	}
	return text, ""
}

// Directory returns why path is no directory, or "". Empty is the working
// directory.
func (f *Checker) Directory(path string) string {
	return f.ask("directory ", path, func(path string) string {
		if path == "" {
			path = "."
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Sprintf("%s%s; expected an existing directory, create it first", Reason(path, err), relative(path))
		case !info.IsDir():
			return fmt.Sprintf("%s is not a directory; expected an existing directory", document.Quote(path))
		}
		return ""
	})
}

// Readable returns why the file cannot be read, or "".
func (f *Checker) Readable(path string) string {
	return f.ask("readable ", path, func(path string) string {
		info, err := os.Stat(path)
		if err != nil {
			return Reason(path, err) + relative(path) + "; expected a readable PEM file"
		}
		if !info.Mode().IsRegular() {
			return document.Quote(path) + " is not a file; expected a readable PEM file"
		}
		file, err := os.Open(path)
		if err != nil {
			return Reason(path, err) + "; expected a readable PEM file"
		}
		_ = file.Close() // nothing was written
		return ""
	})
}

// Executable returns why the command cannot be started, or "".
func (f *Checker) Executable(path string) string {
	return f.ask("executable ", path, func(path string) string {
		if _, err := exec.LookPath(path); err != nil {
			cause := err
			if e := errors.Unwrap(err); e != nil {
				cause = e
			}
			return fmt.Sprintf("%s cannot be executed: %v; expected an executable file or a program in PATH", document.Quote(path), cause)
		}
		return ""
	})
}

// Reason says why a path cannot be used, without naming it twice.
func Reason(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return document.Quote(path) + " does not exist"
	case errors.Is(err, fs.ErrPermission):
		return document.Quote(path) + " may not be accessed"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fmt.Sprintf("%s: %v", document.Quote(path), errno)
	}
	return document.Quote(path) + " cannot be used"
}

// relative tells from where a relative path was looked for.
func relative(path string) string {
	if filepath.IsAbs(path) {
		return ""
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	return " (in " + dir + ")"
}
