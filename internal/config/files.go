package config

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
)

// files answers questions about the file system, each path once: thousands of
// cars may name the same library.
type files struct {
	skip  bool // migration works where the files are not
	known map[string]string
}

func (f *files) ask(question, path string, check func(string) string) string {
	if f.skip {
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

// library returns why path cannot be a module library, or "".
func (f *files) library(path string) string {
	return f.ask("library ", path, func(path string) string {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Sprintf("%s%s; expected the path of a module library", reason(path, err), relative(path))
		case !info.Mode().IsRegular():
			return fmt.Sprintf("%s is not a file; expected the path of a module library", quote(path))
		}
		return ""
	})
}

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 4096

// secret returns what a file of one secret holds, without the white space around it,
// or why it cannot be used.
func (f *files) secret(path string) (text, problem string) {
	if f.skip {
		return "", ""
	}
	const expected = "; expected a file with the token alone"
	file, err := os.Open(path)
	if err != nil {
		return "", reason(path, err) + relative(path) + expected
	}
	defer func() { _ = file.Close() }() // nothing was written
	content, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	text = strings.TrimSpace(string(content))
	switch {
	case err != nil:
		return "", reason(path, err) + expected
	case len(content) > maxSecret || strings.ContainsAny(text, " \t\r\n"):
		return "", quote(path) + " holds more than one word" + expected
	case text == "":
		return "", quote(path) + " is empty" + expected
	}
	return text, ""
}

// directory returns why path is no directory, or "". Empty is the working
// directory.
func (f *files) directory(path string) string {
	return f.ask("directory ", path, func(path string) string {
		if path == "" {
			path = "."
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Sprintf("%s%s; expected an existing directory, create it first", reason(path, err), relative(path))
		case !info.IsDir():
			return fmt.Sprintf("%s is not a directory; expected an existing directory", quote(path))
		}
		return ""
	})
}

// readable returns why the file cannot be read, or "".
func (f *files) readable(path string) string {
	return f.ask("readable ", path, func(path string) string {
		info, err := os.Stat(path)
		if err != nil {
			return reason(path, err) + relative(path) + "; expected a readable PEM file"
		}
		if !info.Mode().IsRegular() {
			return quote(path) + " is not a file; expected a readable PEM file"
		}
		file, err := os.Open(path)
		if err != nil {
			return reason(path, err) + "; expected a readable PEM file"
		}
		_ = file.Close() // nothing was written
		return ""
	})
}

// executable returns why the command cannot be started, or "".
func (f *files) executable(path string) string {
	return f.ask("executable ", path, func(path string) string {
		if _, err := exec.LookPath(path); err != nil {
			cause := err
			if e := errors.Unwrap(err); e != nil {
				cause = e
			}
			return fmt.Sprintf("%s cannot be executed: %v; expected an executable file or a program in PATH", quote(path), cause)
		}
		return ""
	})
}

// reason says why a path cannot be used, without naming it twice.
func reason(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return quote(path) + " does not exist"
	case errors.Is(err, fs.ErrPermission):
		return quote(path) + " may not be accessed"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fmt.Sprintf("%s: %v", quote(path), errno)
	}
	return quote(path) + " cannot be used"
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
