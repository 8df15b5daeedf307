package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/console"
)

const brokerPasswordVariable = "EXTERNAL_SERVER_BROKER_PASSWORD"

var (
	errOneComponent      = errors.New("--reset needs the name of one component")
	errComponentAndLevel = errors.New("expected a component and a level, or nothing")
)

// sniffFlags say which broker to listen to; what is not given comes from the
// configuration file.
type sniffFlags struct {
	config, broker, username, ca, cert, key string
	tls                                     bool
	console.SniffOptions
}

func newSniffCommand() *cobra.Command {
	f := &sniffFlags{}
	cmd := &cobra.Command{
		Use:   "sniff",
		Short: "Show the live MQTT traffic between gateways and server, decoded",
		Long: `sniff subscribes to the topics of cars and prints their messages decoded. It
publishes nothing and leaves nothing behind. Broker and company are those of the
configuration file unless given; a password is taken from the environment
variable ` + brokerPasswordVariable + ` or from the configuration.`,
		Example: `  external-server sniff --car car1
  external-server sniff --broker localhost:1883 --company acme --kind command,commandResponse --json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			f.Colours = coloured(out)
			return console.Sniff(cmd.Context(), f.SniffOptions, out, cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.config, "config", "c", "", "configuration `PATH` (default "+defaultConfig+", if it is there and needed)")
	fs.StringVar(&f.broker, "broker", "", "`HOST:PORT` of the broker")
	fs.StringVar(&f.Company, "company", "", "`NAME` of the company")
	fs.StringVar(&f.Car, "car", "", "`NAME` of one car (default all)")
	fs.StringVar(&f.username, "username", "", "`USER` at the broker")
	fs.BoolVar(&f.tls, "tls", false, "connect with TLS")
	fs.StringVar(&f.ca, "ca", "", "CA certificate `PATH` (PEM)")
	fs.StringVar(&f.cert, "cert", "", "client certificate `PATH` (PEM)")
	fs.StringVar(&f.key, "key", "", "private key `PATH` of the client certificate (PEM)")
	fs.StringSliceVar(&f.Kinds, "kind", nil, "only messages of these kinds: "+strings.Join(console.SniffKinds, ", "))
	fs.StringVar(&f.Device, "device", "", "only messages of devices whose module/type/role/name contains `TEXT`")
	fs.IntVarP(&f.Count, "count", "n", 0, "end after so many messages")
	fs.BoolVar(&f.JSON, "json", false, "print JSON lines")
	offer(cmd, "kind", console.SniffKinds...)
	_ = cmd.RegisterFlagCompletionFunc("car", func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		return (&endpointFlags{config: f.config}).completeCar(cmd, nil, begun)
	})
	return cmd
}

func (f *sniffFlags) complete() error {
	for _, kind := range f.Kinds {
		if !slices.Contains(console.SniffKinds, kind) {
			return usageError{fmt.Errorf("--kind %q; expected some of %s", kind, strings.Join(console.SniffKinds, ", "))}
		}
	}
	files := &config.TLS{CAFile: f.ca, CertFile: f.cert, KeyFile: f.key}
	if !f.tls && f.ca == "" && f.cert == "" {
		files = nil
	}
	if f.config != "" || f.broker == "" || f.Company == "" {
		cfg, _, err := config.Load(cmp.Or(f.config, defaultConfig), os.LookupEnv)
		if err != nil {
			return fmt.Errorf("%w (or give --broker and --company)", err)
		}
		f.Company = cmp.Or(f.Company, cfg.Company)
		if f.broker == "" {
			f.broker = net.JoinHostPort(cfg.Broker.Host, strconv.Itoa(cfg.Broker.Port))
			if cfg.Broker.Host == "" && cfg.EmbeddedBroker != nil {
				f.broker = cfg.EmbeddedBroker.Listen
			}
			if files == nil {
				files = cfg.Broker.TLS
			}
			if f.username == "" {
				f.username, f.Password = cfg.Broker.Username, cfg.Broker.Password.Reveal()
			}
		}
	}
	if password, ok := os.LookupEnv(brokerPasswordVariable); ok {
		f.Password = password
	}
	if strings.ContainsAny(f.Company+f.Car, "/+#") || f.Company == "" {
		return usageError{errors.New("--company and --car are names of lower-case letters, digits and underscores")}
	}
	if _, _, err := net.SplitHostPort(f.broker); err != nil {
		return usageError{fmt.Errorf("--broker %q: expected host:port", f.broker)}
	}
	make, err := tlsfiles.Client(files)
	if err != nil {
		return err
	}
	if make != nil {
		if f.TLS, err = make(); err != nil {
			return err
		}
	}
	f.Address, f.Username = f.broker, f.username
	return nil
}
