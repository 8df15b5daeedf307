package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"external-server/internal/support/servertest"
)

var (
	// codeInText is a fenced or indented block, or code within a line.
	codeInText = regexp.MustCompile("(?s:```.*?```)|`[^`\n]+`|(?m:^ {4}.*$)")
	// commandInText is the program, where a command may begin, with its arguments.
	commandInText = regexp.MustCompile("(?m)(?:^|`|\\$ |-- |&& )[ \t]*(?:bin/)?external-server((?: +[^\\s`|#;&<>()]+)*)")
	wordInText    = regexp.MustCompile(`^[a-z][a-z-]*$`)
	// verbInText is a command without the name of the program.
	verbInText = regexp.MustCompile("^`([a-z-]+(?: [^`]*)? --[^`]*)`$")
)

// Each command that a document shows exists, and has the flags that it is shown with.
func TestCommandsInDocuments(t *testing.T) {
	root := servertest.Root()
	files, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(files) == 0 {
		t.Fatal("no documents found", err)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "modules/example/README.md", "deploy/helm/external-server/README.md"} {
		files = append(files, filepath.Join(root, name))
	}
	commands := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if name == "changing.md" { // shows how a command is added
			continue
		}
		for _, code := range codeInText.FindAllString(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
			for _, m := range commandInText.FindAllStringSubmatch(code, -1) {
				if args := strings.Fields(m[1]); len(args) > 0 {
					commands++
					checkShown(t, name, args)
				}
			}
			if m := verbInText.FindStringSubmatch(code); m != nil {
				if args := strings.Fields(m[1]); childOf(newRootCommand(), args[0]) != nil && args[0] != "bench" { // which is a program of its own now
					commands++
					checkShown(t, name, args)
				}
			}
		}
	}
	if commands < 100 {
		t.Errorf("only %d commands were found", commands)
	}
}

// checkShown fails the test unless the program can be called so.
func checkShown(t *testing.T, document string, args []string) {
	t.Helper()
	if args[0] == "module-host" || args[0] == "module-reaper" { // of the server itself
		return
	}
	cmd := newRootCommand()
	cmd.InitDefaultCompletionCmd(args...)
	for len(args) > 0 && wordInText.MatchString(args[0]) {
		next := childOf(cmd, args[0])
		if next == nil {
			if cmd.HasSubCommands() {
				t.Errorf("%s shows %q: %s has no such command", document, args[0], cmd.CommandPath())
			}
			break
		}
		cmd, args = next, args[1:]
	}
	for _, arg := range args {
		if arg == "--" {
			return // what follows is the command of a module
		}
		flag, _, _ := strings.Cut(arg, "=")
		known := false
		switch {
		case arg == "-h" || arg == "--help":
			continue
		case strings.HasPrefix(flag, "--"):
			known = cmd.Flag(flag[2:]) != nil
		case regexp.MustCompile(`^-[a-z]$`).MatchString(flag):
			known = cmd.Flags().ShorthandLookup(flag[1:]) != nil
		default:
			continue
		}
		if !known {
			t.Errorf("%s shows %s with %s, which it does not have", document, cmd.CommandPath(), flag)
		}
	}
}

func childOf(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}
