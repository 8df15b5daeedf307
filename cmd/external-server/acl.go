package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/config/acl"
)

func newACLCommand() *cobra.Command {
	flags := &serveFlags{}
	var broker, user string
	var cars []string
	var names []string
	for _, b := range acl.Brokers() {
		names = append(names, string(b))
	}
	cmd := &cobra.Command{
		Use:   "acl --broker BROKER [flags] [CONFIG]",
		Short: "Print the access rules that the broker needs",
		Long: `acl prints the access rules of the configuration for a broker: each car may use its
own topics only, and the server has what it needs. The user name of a car is its
company and its name, such as acme/car_1. Passwords are not part of the rules.
docs/brokers.md says where the rules go and what else the broker needs.

    external-server config acl --broker mosquitto fleet.json > /etc/mosquitto/acl

The libraries, directories and secrets that the configuration names need not be
on this machine.`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(names, broker) {
				return usageError{fmt.Errorf("--broker %q; expected one of %s%s", broker, strings.Join(names, ", "), didYouMean(broker, names))}
			}
			path, err := flags.path(args)
			if err != nil {
				return err
			}
			cfg, _, err := config.LoadElsewhere(path, os.LookupEnv)
			if err != nil {
				return invalidConfiguration(cmd, path, err)
			}
			f := acl.Fleet{Company: cfg.Company, AnyCar: cfg.AnyCar != nil, User: cfg.Broker.Username, Cars: cars}
			if cfg.Cluster != nil {
				f.Cluster = cfg.Cluster.Name
			}
			if user != "" {
				f.User = user
			}
			for _, car := range cfg.Cars {
				f.Cars = append(f.Cars, car.Name)
			}
			if cfg.EmbeddedBroker != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "external-server: warning: the configuration has an embedded broker, which takes its users from embedded_broker.users")
			}
			err = acl.Write(cmd.OutOrStdout(), acl.Broker(broker), f)
			if errors.Is(err, acl.ErrNoCars) {
				return fmt.Errorf("%w in %s; name the cars with --car", err, path)
			}
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&flags.config, "config", "c", "", "configuration `PATH` (default "+defaultConfig+")")
	fs.StringVar(&broker, "broker", "", "the `BROKER` that reads the rules: "+strings.Join(names, ", "))
	fs.StringVar(&user, "server-user", "", "`USER` of the server at the broker (default that of the configuration, else "+acl.DefaultUser+")")
	fs.StringSliceVar(&cars, "car", nil, "a car that the configuration serves by \"*\"; may be repeated")
	offer(cmd, "broker", names...)
	return cmd
}
