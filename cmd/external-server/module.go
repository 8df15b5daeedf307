package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/console"
	"external-server/internal/module/check"
)

func newModuleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "module",
		Short: "Tools for authors of modules",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newModuleCheckCommand(), newModuleTryCommand())
	return cmd
}

// libraryName tells a shared library from an executable.
var libraryName = regexp.MustCompile(`\.so(\.[0-9]+)*$`)

func newModuleCheckCommand() *cobra.Command {
	var settings string
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "check [flags] LIBRARY.so | COMMAND [ARGUMENT ...]",
		Short: "Check whether a module keeps the rules of the module interface",
		Long: `check runs a module library, or an executable that is a module, in processes of
its own and checks one rule of the module interface after the other. The exit
code is 0 when none is broken, 130 when the check was interrupted, else 1.

The file of --config is JSON; all members are optional:

  {
    "number": 1000,                  the module number it must report
    "config": {"key": "value"},      a configuration that it must accept
    "status": "{\"pressed\": true}",   a status of one of its devices
    "conversation": [                statuses and the commands they cause, in order
      {"status": "...", "command": "..."}
    ],
    "cycles": 1000                   how often a context is made and destroyed
  }`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("name the module: a library (.so), or a command and its arguments")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			target := check.Command(args)
			if libraryName.MatchString(args[0]) {
				if len(args) > 1 {
					return usageError{fmt.Errorf("unexpected argument %q after the library", args[1])}
				}
				target = check.Library(args[0])
			}
			if settings != "" {
				if err := target.ReadSettings(settings); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			printed := findings{out: out}
			progress := printed.add
			if asJSON {
				progress = nil
			}
			if verbose {
				target.Output = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			}
			report := check.Run(cmd.Context(), target, progress)
			printed.flush()
			if asJSON {
				if err := writeReport(out, "", report); err != nil {
					return err
				}
			}
			if report.Interrupted {
				return fmt.Errorf("%w; rules that were skipped may be broken", errInterrupted)
			}
			if cause := report.Cause(); cause != "" {
				return errors.New(cause)
			}
			if !asJSON {
				fmt.Fprintf(out, "module %d (%s): no rule is broken\n", report.Number, report.Module)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&settings, "config", "c", "", "`FILE` with what is to be known about the module (see above)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print what the module writes on standard error")
	cmd.Flags().SetInterspersed(false) // what follows a command is its own
	return cmd
}

// findings prints what was found; skipped rules with the same reason are one line.
type findings struct {
	out     io.Writer
	skipped []check.Finding
}

func (p *findings) add(f check.Finding) {
	if f.Outcome != check.Skipped || len(p.skipped) > 0 && p.skipped[0].Detail != f.Detail {
		p.flush()
	}
	if f.Outcome == check.Skipped {
		p.skipped = append(p.skipped, f)
		return
	}
	p.print(f.Outcome, fmt.Sprintf("%-5s  %s [%s] (%v)", f.Rule, f.Text, f.Spec, f.Took.Round(time.Millisecond)))
	if f.Detail != "" {
		fmt.Fprintf(p.out, "                %s\n", strings.ReplaceAll(f.Detail, "\n", "\n                "))
	}
}

// flush prints the rules that were skipped since the last other one.
func (p *findings) flush() {
	switch n := len(p.skipped); n {
	case 0:
		return
	case 1:
		p.print(check.Skipped, fmt.Sprintf("%-5s  %s: %s", p.skipped[0].Rule, p.skipped[0].Text, p.skipped[0].Detail))
	default:
		p.print(check.Skipped, fmt.Sprintf("%s to %s, %d rules: %s", p.skipped[0].Rule, p.skipped[n-1].Rule, n, p.skipped[0].Detail))
	}
	p.skipped = nil
}

func (p *findings) print(outcome check.Outcome, text string) {
	paint := console.Dim
	switch outcome {
	case check.Pass:
		paint = console.Good
	case check.Fail:
		paint = console.Bad
	}
	fmt.Fprintf(p.out, "%s  %s\n", paint(coloured(p.out), fmt.Sprintf("%-7s", outcome)), text)
}
