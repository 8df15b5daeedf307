package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"external-server/internal/module/cabi"
)

// Set by the linker (make server, make release). A build by hand has what the go command
// knows of the clone.
var (
	version = "dev"
	commit  string // hash
	date    string // of the commit, RFC 3339
)

// build says what this program is.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Date      string `json:"date,omitempty"` // of the commit, RFC 3339
	Go        string `json:"go"`
	Platform  string `json:"platform"`
	Libraries bool   `json:"libraries"` // shared libraries can be loaded: built with cgo
}

func thisBuild() build {
	b := build{Version: version, Commit: commit, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Libraries: cabi.Available}
	info, ok := debug.ReadBuildInfo()
	if !ok || b.Commit != "" {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		}
	}
	return b
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and date",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := thisBuild()
			out := cmd.OutOrStdout()
			if asJSON {
				return json.NewEncoder(out).Encode(b)
			}
			fmt.Fprintf(out, "external-server %s %s %s\n", b.Version, b.Go, b.Platform)
			if b.Commit != "" {
				fmt.Fprintf(out, "commit %s\n", b.Commit)
			}
			if b.Date != "" {
				fmt.Fprintf(out, "date %s\n", b.Date)
			}
			if !b.Libraries {
				fmt.Fprintln(out, "built without cgo: module libraries need external-server-module-host beside this program")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
