package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/lab/trial"
	"external-server/internal/module/check"
)

func newModuleTryCommand() *cobra.Command {
	var settings, status string
	var seconds float64
	o := trial.Options{}
	cmd := &cobra.Command{
		Use:   "try [flags] LIBRARY.so | COMMAND [-- ARGUMENT ...]",
		Short: "Run a module with one simulated car and show what it does",
		Long: `try runs a module with the real server and one simulated car with one device. The
device reports what --status says; statuses, commands, what the module prints and
what is wrong are shown as they happen, until Ctrl-C or for --seconds. Nothing else
is needed: the broker is a part of the server.

--status is a JSON text, or a file with one status, or one per line, which are
reported in turn. --config names the file that "module check" reads; its status
and its configuration of the module are used.

The exit code is 1 when the module cannot be run or no status was answered.`,
		Example: `  external-server module try ./liblamp-post.so --status '{"dark": true}'
  external-server module try ./my-module --seconds 5 --status statuses.jsonl
  external-server module try --status '{"dark": true}' -- python3 -u lamp_post.py --verbose`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("name the module: a library (.so), or a command and its arguments")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Target, o.Command = check.Command(args), args
			if libraryName.MatchString(args[0]) {
				if len(args) > 1 {
					return usageError{fmt.Errorf("unexpected argument %q after the library", args[1])}
				}
				o.Target, o.Library = check.Library(args[0]), args[0]
			}
			if settings != "" {
				if err := o.Target.ReadSettings(settings); err != nil {
					return err
				}
			}
			var err error
			if o.Statuses, err = readStatuses(status); err != nil {
				return err
			}
			if len(o.Statuses) == 0 && o.Target.Status != "" {
				o.Statuses = [][]byte{[]byte(o.Target.Status)}
			}
			for _, e := range o.Target.Conversation {
				if status == "" && o.Target.Status == "" {
					o.Statuses = append(o.Statuses, []byte(e.Status))
				}
			}
			if len(o.Statuses) == 0 {
				o.Statuses = [][]byte{[]byte("{}")}
			}
			if seconds < 0 || seconds > 1e6 {
				return usageError{fmt.Errorf("--seconds %v: expected 0 to 1000000", seconds)}
			}
			if o.DeviceType > 1<<32-1 {
				return usageError{fmt.Errorf("--device-type %d: expected 0 to %d", o.DeviceType, uint32(1<<32-1))}
			}
			o.Duration = time.Duration(seconds * float64(time.Second))
			// Without a reader the trial ends, and clears up.
			defer surviveClosedOutput()()
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			o.Out = &read{cmd.OutOrStdout(), stop}
			return trial.Run(ctx, o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&status, "status", "", "what the device reports: `JSON|FILE` (default: that of --config, or {})")
	fs.DurationVar(&o.Every, "every", time.Second, "pause between two statuses")
	fs.Float64Var(&seconds, "seconds", 0, "end after so many seconds; 0: with Ctrl-C")
	fs.Int64Var(&o.DeviceType, "device-type", -1, "type of the device (default: the first that the module serves)")
	fs.StringVar(&o.Role, "role", "device", "role of the device")
	fs.StringVarP(&settings, "config", "c", "", "`FILE` with the module's configuration and a status, as for \"module check\"")
	return cmd
}
