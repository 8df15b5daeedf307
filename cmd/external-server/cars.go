package main

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"external-server/internal/console"
)

// mostCars is how many cars are listed, and searched for names, unless told.
const mostCars = 10_000

func newCarsCommand() *cobra.Command {
	var endpoint endpointFlags
	var watch watched
	var raw, descending bool
	var text, state, reason, sort string
	var labels []string
	var limit, module int
	cmd := &cobra.Command{
		Use:   "cars",
		Short: "List the cars of a running server, and why they are not connected",
		Example: `  external-server cars --state waiting
  external-server cars --label depot=brno --label model=shuttle
  external-server cars --sort last_seen --watch`,
		Args: noArguments,
		RunE: endpoint.with(func(ctx context.Context, c *console.Client, out, notes io.Writer) error {
			q := url.Values{"sort": {sort}, "limit": {strconv.Itoa(limit)}}
			for key, value := range map[string]string{"q": text, "state": state, "reason": reason} {
				if value != "" {
					q.Set(key, value)
				}
			}
			if len(labels) > 0 {
				q["label"] = labels
			}
			if descending {
				q.Set("order", "desc")
			}
			if module >= 0 {
				q.Set("module", strconv.Itoa(module))
			}
			return watch.run(ctx, out, notes, func(w io.Writer) error {
				if raw {
					return printJSON(ctx, c, "/api/v1/cars", q, w)
				}
				return console.Cars(ctx, c, q, w, coloured(out))
			})
		}),
	}
	endpoint.register(cmd)
	watch.register(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&raw, "json", false, "print the endpoint's JSON")
	fs.StringVar(&text, "name", "", "only cars whose name contains `TEXT`")
	fs.StringVar(&state, "state", "", "only cars that are waiting, connecting or running")
	fs.StringVar(&reason, "why", "", "only cars that are not running for a reason that contains `TEXT`")
	fs.StringArrayVar(&labels, "label", nil, "only cars with the label `NAME=VALUE`, or NAME for any value; several: cars with all of them")
	fs.IntVar(&module, "module", -1, "only cars that have the module `NUMBER`")
	fs.StringVar(&sort, "sort", "name", "name, state, since, last_seen, devices, statuses, sessions, ends or why")
	fs.BoolVar(&descending, "desc", false, "largest first")
	fs.IntVar(&limit, "limit", mostCars, "most cars to list")
	_ = cmd.RegisterFlagCompletionFunc("label", endpoint.completeLabel) // fails for unknown flags only
	offer(cmd, "state", "waiting", "connecting", "running")
	offer(cmd, "sort", "name", "state", "since", "last_seen", "devices", "statuses", "sessions", "ends", "why")
	return cmd
}

func newModulesCommand() *cobra.Command {
	var endpoint endpointFlags
	var watch watched
	var raw bool
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "List the modules of a running server: state, process, restarts, what waits",
		Args:  noArguments,
		RunE: endpoint.with(func(ctx context.Context, c *console.Client, out, notes io.Writer) error {
			return watch.run(ctx, out, notes, func(w io.Writer) error {
				if raw {
					return printJSON(ctx, c, "/api/v1/modules", nil, w)
				}
				return console.Modules(ctx, c, w, coloured(out))
			})
		}),
	}
	endpoint.register(cmd)
	watch.register(cmd)
	cmd.Flags().BoolVar(&raw, "json", false, "print the endpoint's JSON")
	return cmd
}

func newCarCommand() *cobra.Command {
	var endpoint endpointFlags
	var watch watched
	var raw bool
	cmd := &cobra.Command{
		Use:   "car NAME",
		Short: "Show one car: devices, last statuses and commands, ends of its sessions",
		Args:  oneCar,
	}
	cmd.ValidArgsFunction = endpoint.completeCar
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return endpoint.with(func(ctx context.Context, c *console.Client, out, notes io.Writer) error {
			return meant(ctx, c, args[0], watch.run(ctx, out, notes, func(w io.Writer) error {
				if raw {
					return printJSON(ctx, c, "/api/v1/cars/"+url.PathEscape(args[0]), nil, w)
				}
				return console.Car(ctx, c, args[0], w, coloured(out))
			}))
		})(cmd, args)
	}
	endpoint.register(cmd)
	watch.register(cmd)
	cmd.Flags().BoolVar(&raw, "json", false, "print the endpoint's JSON")
	return cmd
}

// newActCommand is disconnect or reannounce.
func newActCommand(name, short, long string) *cobra.Command {
	var endpoint endpointFlags
	cmd := &cobra.Command{Use: name + " CAR", Short: short, Long: long, Args: oneCar, ValidArgsFunction: endpoint.completeCar}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return endpoint.with(func(ctx context.Context, c *console.Client, out, _ io.Writer) error {
			return meant(ctx, c, args[0], say(out)(c.Change(ctx, http.MethodPost, "/api/v1/cars/"+url.PathEscape(args[0])+"/"+name, nil)))
		})(cmd, args)
	}
	endpoint.register(cmd)
	return cmd
}

func newDisconnectCommand() *cobra.Command {
	return newActCommand("disconnect", "End the session of a car",
		"disconnect ends the session of a car: its modules see the devices disconnected, the\ngateway is told and connects anew by itself.")
}

func newReannounceCommand() *cobra.Command {
	return newActCommand("reannounce", "Ask a car's gateway to connect anew",
		"reannounce tells the gateway of a car to connect anew and to announce its devices\nagain. The session goes on until it does.")
}

// say prints the endpoint's text.
func say(out io.Writer) func(string, error) error {
	return func(text string, err error) error {
		if err == nil {
			_, err = io.WriteString(out, text+"\n")
		}
		return err
	}
}
