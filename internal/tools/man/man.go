// Package man writes the manual pages of the server's commands and of its
// configuration. The server itself does not link it: see cmd/external-server/man.go.
package man

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"external-server/internal/config/manual"
)

// Write writes the page of each command that users can see, from root on, and that of
// the configuration file into the directory, which it makes. sections returns what a
// page tells beyond the help, in roff.
func Write(root *cobra.Command, dir, version string, sections func(*cobra.Command) string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	if err := writePages(root, dir, version, sections); err != nil {
		return err
	}
	page, err := manual.Page(version)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "external-server-config.5"), page, 0o644)
}

// writePages writes the page of a command and those of its sub-commands.
func writePages(cmd *cobra.Command, dir, version string, sections func(*cobra.Command) string) error {
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			if err := writePages(sub, dir, version, sections); err != nil {
				return err
			}
		}
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	header := &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: "external-server " + version, Manual: "External Server"}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	text, related, _ := strings.Cut(page.String(), ".SH SEE ALSO\n")
	text = strings.TrimRight(text, "\n") + "\n" + sections(cmd) + ".SH SEE ALSO\n" + strings.TrimRight(related, "\n")
	if related != "" {
		text += ", "
	}
	text += "\\fBexternal-server-config(5)\\fP\n"
	return os.WriteFile(filepath.Join(dir, name+".1"), []byte(text), 0o644)
}
