package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// WriteTable writes the report as a table in Markdown, which is readable as it is.
func (r *Report) WriteTable(w io.Writer) error {
	rows := [][]string{{"measure", "server", "echo", "ratio", "target", "met"}}
	for _, res := range r.Results {
		title := res.Title
		if res.Unit != "" {
			title += ", " + res.Unit
		}
		row := []string{title, spread(res.Server), spread(res.Echo), "–", "–", "–"}
		if res.Ratio != nil {
			row[3] = fmt.Sprintf("%.2f", *res.Ratio)
			if s := res.Ratios; s != nil && len(res.Server.Runs) > 1 {
				row[3] = fmt.Sprintf("%.2f (%.2f–%.2f)", *res.Ratio, s.Low, s.High)
			}
		}
		if res.Target != "" {
			row[4] = res.Target
		}
		if res.Met != nil {
			row[5] = map[bool]string{true: "yes", false: "NO"}[*res.Met]
		}
		rows = append(rows, row)
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nbroker: %s\ndate: %s, command: %s\nload average before and after: %s, %s; medians of %d runs of %v s in turns (lowest to highest), ratios of the pairs of runs (quartiles)\n\n",
		r.Machine, r.Broker, r.Date, r.Command, r.LoadBefore, r.LoadAfter, r.Runs, r.Seconds)
	if most := max(r.BusyBefore, r.BusyAfter); most > tooBusy {
		fmt.Fprintf(&b, "NOTE: other programs used %.0f %% of the processors before and %.0f %% after the measurement. Rates and latencies say nothing then, "+
			"CPU per status little: measure again on a quiet machine.\n\n", r.BusyBefore, r.BusyAfter)
	}
	for i, row := range rows {
		for k, cell := range row {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", widths[k]-len([]rune(cell))))
		}
		b.WriteString("|\n")
		if i == 0 {
			for _, width := range widths {
				b.WriteString("|" + strings.Repeat("-", width+2))
			}
			b.WriteString("|\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// tooBusy is how much of the processors other programs may use, in percent.
const tooBusy = 15

func spread(s *Stat) string {
	if s == nil {
		return "–"
	}
	if len(s.Runs) == 1 {
		return figure(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", figure(s.Median), figure(s.Min), figure(s.Max))
}

// figure writes a number with three digits that mean something.
func figure(x float64) string {
	switch a := math.Abs(x); {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	case a >= 1:
		return fmt.Sprintf("%.2f", x)
	case a >= 0.1:
		return fmt.Sprintf("%.3f", x)
	}
	return fmt.Sprintf("%.4f", x)
}
