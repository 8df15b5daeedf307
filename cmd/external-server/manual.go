package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/config/manual"
)

// manualSections are what a page tells beyond the help: files, variables, exit codes.
func manualSections(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title string, entries ...[2]string) {
		fmt.Fprintf(&b, ".SH %s\n", title)
		for _, e := range entries {
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s\n", manual.Roff(e[0]), manual.Roff(e[1]))
		}
	}
	flags := cmd.Flags()
	asks, sniffs := flags.Lookup("admin") != nil, cmd.Name() == "sniff"
	if flags.Lookup("config") != nil && cmd.CommandPath() != "external-server module check" {
		files := [][2]string{{defaultConfig, "The configuration, unless -c names another file; external-server-config(5) describes it."}}
		if !cmd.HasParent() {
			files = append(files,
				[2]string{"/etc/external-server/config.json", "The configuration of the service that the packages install."},
				[2]string{"/var/lib/external-server", "The state directory of that service."})
		}
		section("FILES", files...)
	}
	var variables [][2]string
	if asks {
		variables = append(variables, [2]string{tokenVariable, "Token for the admin endpoint, when --token is not given. Other users do not see it there."})
	}
	if sniffs {
		variables = append(variables, [2]string{brokerPasswordVariable, "Password at the broker."})
	}
	if cmd.Name() == "demo" {
		variables = append(variables, [2]string{"DEMO_SECONDS", "The demo ends after so many seconds."})
	}
	if asks || sniffs {
		variables = append(variables, [2]string{"NO_COLOR", "Any value: no colours."})
	}
	if !cmd.HasParent() || cmd.Name() == "check" {
		variables = append(variables,
			[2]string{config.EnvUsername, "User name at the broker; it wins over the configuration."},
			[2]string{config.EnvPassword, "Password at the broker; it wins over the configuration."})
	}
	if len(variables) > 0 {
		section("ENVIRONMENT", variables...)
	}
	codes := [][2]string{
		{"0", "It was done. A server: it was stopped in order."},
		{"1", "It could not be done; the error says why."},
		{"2", "The command was called wrongly."},
	}
	if !cmd.HasParent() || strings.HasSuffix(cmd.CommandPath(), "module check") {
		codes = append(codes, [2]string{"130", "A second signal ended the server at once, or the check was interrupted."})
	}
	section("EXIT STATUS", codes...)
	return b.String()
}
