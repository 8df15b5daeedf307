package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/console"
	"external-server/internal/console/health"
)

const tokenVariable = "EXTERNAL_SERVER_ADMIN_TOKEN"

// endpointFlags say where the admin endpoint of the running server is.
type endpointFlags struct {
	config, admin, token, ca string
}

func (f *endpointFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration `PATH` that tells the endpoint and a token (default "+defaultConfig+", if it is there)")
	flags.StringVar(&f.admin, "admin", "", "`URL` of the admin endpoint, such as "+health.DefaultURL)
	flags.StringVar(&f.token, "token", "", "bearer `TOKEN`; better in "+tokenVariable+", where other users do not see it")
	flags.StringVar(&f.ca, "admin-ca", "", "CA certificate `PATH` (PEM) of the admin endpoint")
}

// client finds the endpoint: flags, then the environment, then the configuration
// file. A file with errors says nothing about the server that runs with what it was
// before: notes is told, and the default endpoint is asked.
func (f *endpointFlags) client(notes io.Writer) (*console.Client, error) {
	base, token, settings := health.DefaultURL, "", (*tls.Config)(nil)
	path := cmp.Or(f.config, defaultConfig)
	_, missing := os.Stat(path)
	if f.config != "" || f.admin == "" && missing == nil {
		cfg, _, err := config.Load(path, os.LookupEnv)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%w (or give --admin)", err)
		case err != nil:
			fmt.Fprintf(notes, "%v\nasking %s; a token is taken from --token or %s\n", err, cmp.Or(f.admin, base), tokenVariable)
			cfg = &config.Config{Admin: &config.Admin{Listen: strings.TrimPrefix(health.DefaultURL, "http://")}}
		}
		if cfg.Admin == nil && f.admin == "" {
			return nil, fmt.Errorf("%s has no block \"admin\": the server has no admin endpoint", path)
		}
		if cfg.Admin != nil {
			token = bestToken(cfg.Admin)
		}
		if f.admin == "" {
			endpoint, err := health.FromConfig(cfg.Admin)
			if err != nil {
				return nil, fmt.Errorf("%w (or give --admin, with --admin-ca)", err)
			}
			base, settings = endpoint.URL, endpoint.TLS
		}
	}
	base = cmp.Or(f.admin, base)
	if f.ca != "" {
		made, err := tlsfiles.Client(&config.TLS{CAFile: f.ca})
		if err != nil {
			return nil, err
		}
		if settings, err = made(); err != nil {
			return nil, err
		}
	}
	return console.NewClient(base, cmp.Or(f.token, os.Getenv(tokenVariable), token), settings)
}

// bestToken returns the configured token with the highest role.
func bestToken(a *config.Admin) (token string) {
	for _, role := range []config.Role{config.RoleRead, config.RoleOperate} {
		for _, t := range a.Tokens {
			if t.Role == role {
				token = t.Token.Reveal()
			}
		}
	}
	return token
}

// with runs a command that asks the endpoint.
func (f *endpointFlags) with(do func(ctx context.Context, c *console.Client, out, notes io.Writer) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		c, err := f.client(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
}

// watched repeats a printing until the context ends. Once it has succeeded, a
// server that goes away, perhaps to be started anew, is waited for.
type watched struct {
	on    bool
	every time.Duration
}

func (w *watched) register(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&w.on, "watch", "w", false, "print again and again, until interrupted")
	cmd.Flags().DurationVar(&w.every, "interval", 2*time.Second, "pause of --watch")
}

func (w *watched) run(ctx context.Context, out, notes io.Writer, print func(io.Writer) error) error {
	if !w.on {
		return print(out)
	}
	if w.every < 100*time.Millisecond {
		return usageError{errors.New("--interval must be at least 100ms")}
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for lost, first := false, true; ; first = false {
		err := repaint(out, print)
		if ctx.Err() != nil {
			return nil
		}
		away := console.Away(err)
		switch {
		case err != nil && (first || !away):
			return err
		case away && !lost:
			fmt.Fprintf(notes, "%v; trying again\n", err)
		}
		lost = away
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// repaint prints over what is on a terminal, at once, and after it elsewhere.
func repaint(out io.Writer, print func(io.Writer) error) error {
	f, ok := out.(*os.File)
	if !ok || !console.Terminal(f) {
		return print(out)
	}
	var page pageBuffer
	if err := print(&page); err != nil {
		return err
	}
	_, err := f.Write(append([]byte("\x1b[H\x1b[2J"), page...))
	return err
}

type pageBuffer []byte

func (p *pageBuffer) Write(b []byte) (int, error) {
	*p = append(*p, b...)
	return len(b), nil
}

// coloured tells whether out is a terminal that wants colours.
func coloured(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && console.Terminal(f)
}

// printJSON prints an answer of the endpoint, harmless for a terminal.
func printJSON(ctx context.Context, c *console.Client, path string, query map[string][]string, out io.Writer) error {
	raw, err := c.Raw(ctx, path, query)
	if err != nil {
		return err
	}
	_, err = out.Write(console.CleanJSON(raw))
	return err
}

func oneCar(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usageError{fmt.Errorf("expected the name of one car, got %d arguments", len(args))}
	}
	return nil
}
