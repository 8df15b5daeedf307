package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"external-server/internal/console"
)

// closest returns the candidate that a mistyped word may stand for: with at most a
// third of its letters wrong. It is "" when there is none.
func closest(word string, candidates []string) string {
	best, least := "", max(1, utf8.RuneCountInString(word)/3)
	for _, c := range candidates {
		if d := edits([]rune(strings.ToLower(word)), []rune(strings.ToLower(c)), least); d <= least && (best == "" || d < least) {
			best, least = c, d
		}
	}
	return best
}

// edits counts the letters to insert, remove, change or swap with the next one; more
// than the limit is one more than the limit.
func edits(a, b []rune, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := range a {
		before, last, now := rows[0], rows[1], rows[2]
		now[0] = i + 1
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			now[j+1] = min(last[j+1]+1, now[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		rows = [3][]int{last, now, before}
	}
	return rows[1][len(b)]
}

// didYouMean is the question after an error, "" without a candidate.
func didYouMean(word string, candidates []string) string {
	if c := closest(word, candidates); c != "" {
		return fmt.Sprintf("; did you mean %q?", c)
	}
	return ""
}

// meant adds to an error about an unknown car which one may have been meant.
func meant(ctx context.Context, c *console.Client, car string, err error) error {
	if !console.Unknown(err) {
		return err
	}
	names, listed := console.CarNames(ctx, c, "", mostCars)
	if listed != nil {
		return err
	}
	return fmt.Errorf("%w%s", err, didYouMean(car, names))
}

// meantComponent does the same for the component of a log level.
func meantComponent(ctx context.Context, c *console.Client, component string, err error) error {
	if !console.Unknown(err) {
		return err
	}
	names, listed := console.Components(ctx, c)
	if listed != nil {
		return err
	}
	return fmt.Errorf("%w%s", err, didYouMean(component, names))
}

// subcommands returns the names of what can follow a command.
func subcommands(cmd *cobra.Command) (names []string) {
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

var unknownFlag = regexp.MustCompile("^unknown flag: --(.+)$")

// wrongFlag completes the error about an unknown flag.
func wrongFlag(cmd *cobra.Command, err error) error {
	if found := unknownFlag.FindStringSubmatch(err.Error()); found != nil {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if c := closest(found[1], names); c != "" {
			err = fmt.Errorf("%w; did you mean --%s?", err, c)
		}
	}
	return usageError{err}
}

// mistypedCommand tells a mistyped sub-command from the name of a configuration
// file: no such file exists, and a command has nearly that name.
func mistypedCommand(root *cobra.Command, argument string) error {
	if _, err := os.Stat(argument); !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if c := closest(argument, subcommands(root)); c != "" {
		return usageError{fmt.Errorf("%q is neither a command nor a configuration file; did you mean %q?", argument, c)}
	}
	return nil
}
