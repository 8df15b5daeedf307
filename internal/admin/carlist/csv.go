package carlist

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// column is one of the table.
type column struct {
	name string
	cell func(*Brief) string
}

var columns = []column{
	{"name", func(b *Brief) string { return b.Name }},
	{"state", func(b *Brief) string { return b.State }},
	{"since", func(b *Brief) string { return moment(b.Since) }},
	{"why", func(b *Brief) string { return b.Why }},
	{"last_seen", func(b *Brief) string { return moment(b.LastSeen) }},
	{"session", func(b *Brief) string { return b.Session }},
	{"resumed", func(b *Brief) string { return moment(b.Resumed) }},
	{"devices", func(b *Brief) string { return fmt.Sprint(b.Devices) }},
	{"statuses", func(b *Brief) string { return fmt.Sprint(b.Statuses) }},
	{"sessions", func(b *Brief) string { return fmt.Sprint(b.Sessions) }},
	{"ends", func(b *Brief) string { return fmt.Sprint(b.Ends) }},
	{"last_end_at", ofEnd(func(e *End) string { return moment(&e.At) })},
	{"last_end_reason", ofEnd(func(e *End) string { return e.Reason })},
	{"last_end_session", ofEnd(func(e *End) string { return e.Session })},
	{"last_end_established", ofEnd(func(e *End) string { return fmt.Sprint(e.Established) })},
	{"last_end_seconds", ofEnd(func(e *End) string { return fmt.Sprintf("%.3f", e.Seconds) })},
	{"last_end_unanswered_commands", ofEnd(func(e *End) string { return fmt.Sprint(e.Unanswered) })},
	{"replica", func(b *Brief) string { return b.Replica }},
	{"shard", func(b *Brief) string {
		if b.Shard == nil {
			return ""
		}
		return fmt.Sprint(*b.Shard)
	}},
	{"epoch", func(b *Brief) string {
		if b.Epoch == 0 {
			return ""
		}
		return fmt.Sprint(b.Epoch)
	}},
}

func ofEnd(cell func(*End) string) func(*Brief) string {
	return func(b *Brief) string {
		if b.LastEnd == nil {
			return ""
		}
		return cell(b.LastEnd)
	}
}

func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// WriteCSV writes the cars as RFC 4180 describes it, with a line of names first. Every
// label of a car is a column, "label.NAME". What a spreadsheet would take for a formula is
// written as text.
func WriteCSV(w io.Writer, cars []Brief) error {
	names := map[string]bool{}
	for i := range cars {
		for name := range cars[i].Labels {
			names[name] = true
		}
	}
	labels := make([]string, 0, len(names))
	for name := range names {
		labels = append(labels, name)
	}
	slices.SortFunc(labels, natural)
	out := bufio.NewWriter(w)
	cells := make([]string, 0, len(columns)+len(labels))
	for _, c := range columns {
		cells = append(cells, c.name)
	}
	for _, name := range labels {
		cells = append(cells, "label."+name)
	}
	line(out, cells)
	for i := range cars {
		cells = cells[:0]
		for _, c := range columns {
			cells = append(cells, c.cell(&cars[i]))
		}
		for _, name := range labels {
			cells = append(cells, cars[i].Labels[name])
		}
		line(out, cells)
	}
	return out.Flush()
}

// line writes to a writer that keeps its first error.
func line(out *bufio.Writer, cells []string) {
	for i, cell := range cells {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		_, _ = out.WriteString(quoted(cell))
	}
	_, _ = out.WriteString("\r\n")
}

// quoted is a cell as text that no spreadsheet computes: a quote sign goes before what
// begins a formula, at the beginning and after everything that some spreadsheet takes for
// the end of a cell. What is not UTF-8 is replaced.
func quoted(cell string) string {
	cell = strings.ToValidUTF8(cell, "\ufffd")
	if !strings.ContainsAny(cell, "=+-@|\t\r\n\",;＝＋－＠") {
		return cell
	}
	var b strings.Builder
	begins := true
	for _, r := range cell {
		if begins && strings.ContainsRune("=+-@|\t\r\n＝＋－＠", r) {
			b.WriteByte('\'')
		}
		begins = strings.ContainsRune("\t\r\n,;\"", r) || begins && r == ' '
		if r == '"' {
			b.WriteByte('"')
		}
		b.WriteRune(r)
	}
	return `"` + b.String() + `"`
}
