package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/console"
)

// completionTime bounds what somebody at the keyboard waits for the server.
const completionTime = time.Second

// completionCars bounds how many names a shell is given.
const completionCars = 1000

// ask asks the running server while a shell completes; without an answer nothing is
// offered.
func (f *endpointFlags) ask(cmd *cobra.Command, what func(ctx context.Context, c *console.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTime)
	defer cancel()
	c, err := f.client(io.Discard)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	names, err := what(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeCar offers the cars of the running server.
func (f *endpointFlags) completeCar(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.ask(cmd, func(ctx context.Context, c *console.Client) ([]string, error) {
		names, err := console.CarNames(ctx, c, begun, completionCars)
		return beginning(names, begun), err
	})
}

// completeLabel offers the labels of the cars of the running server.
func (f *endpointFlags) completeLabel(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return f.ask(cmd, func(ctx context.Context, c *console.Client) ([]string, error) {
		labels, err := console.Labels(ctx, c, mostCars)
		return beginning(labels, begun), err
	})
}

// completeLevel offers the components of the running server, then the levels.
func (f *endpointFlags) completeLevel(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return f.ask(cmd, func(ctx context.Context, c *console.Client) ([]string, error) {
			names, err := console.Components(ctx, c)
			return beginning(names, begun), err
		})
	case 1:
		return beginning([]string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}, strings.ToUpper(begun)), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// offer lets a shell complete a flag with one of the values.
func offer(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return beginning(values, begun), cobra.ShellCompDirectiveNoFileComp
	}) // fails for unknown flags only
}

func beginning(all []string, begun string) (out []string) {
	for _, s := range all {
		if strings.HasPrefix(s, begun) {
			out = append(out, s)
		}
	}
	return out
}
