package console

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Events prints what happens, a line each, until ctx ends; JSON lines with raw. That
// the connection is lost and made again goes to notes.
func Events(ctx context.Context, c *Client, query url.Values, out, notes io.Writer, raw, colours bool) error {
	return c.Stream(ctx, "/api/v1/events", query, notes, func(ev Sent) error {
		if raw {
			_, err := fmt.Fprintf(out, "%s\n", CleanJSON(ev.Data))
			return err
		}
		_, err := fmt.Fprintln(out, eventLine(ev, colours))
		return err
	})
}

func eventLine(sent Sent, colours bool) string {
	var ev struct {
		At      time.Time `json:"at"`
		Car     string    `json:"car"`
		Replica string    `json:"replica"`
		Session string    `json:"session"`
		Reason  string    `json:"reason"`
		Device  string    `json:"device"`
		Text    string    `json:"text"`
		Count   int       `json:"count"`
		Seconds float64   `json:"seconds"`
		Lost    uint64    `json:"lost"`
	}
	if err := json.Unmarshal(sent.Data, &ev); err != nil {
		return Clean(string(sent.Data))
	}
	at := strings.Repeat(" ", 12)
	if !ev.At.IsZero() {
		at = ev.At.Local().Format("15:04:05.000")
	}
	colour := map[string]string{"running": green, "resumed": green, "disconnect": yellow, "fault": red, "module": blue, "link": blue, "gap": red}[sent.Kind]
	parts := []string{at, paint(colours, colour, fmt.Sprintf("%-13s", Clean(sent.Kind)))}
	add := func(format string, args ...any) {
		parts = append(parts, brief(Clean(fmt.Sprintf(format, args...)), partWidth))
	}
	if ev.Car != "" {
		add("%s", ev.Car)
	}
	if ev.Replica != "" {
		add("at %s", ev.Replica)
	}
	if ev.Session != "" {
		add("session %s", ev.Session)
	}
	if ev.Device != "" {
		add("%s", briefDevice(ev.Device))
	}
	if ev.Reason != "" {
		add("%s", ev.Reason)
	}
	if ev.Text != "" {
		add("%s", ev.Text)
	}
	if ev.Seconds > 0 {
		add("after %s", duration(time.Duration(ev.Seconds*float64(time.Second))))
	}
	if ev.Count > 1 && !strings.HasPrefix(sent.Kind, "device_") { // of those the text says how many
		add("(%d)", ev.Count)
	}
	if ev.Lost > 0 {
		add("(%d entries are missing)", ev.Lost)
	}
	return strings.Join(parts, "  ")
}

// LogLevels prints the level of every component, and which ones were set apart
// from the configuration.
func LogLevels(ctx context.Context, c *Client, out io.Writer) error {
	var levels map[string]struct {
		Level, Configured string
		Overridden        bool
	}
	if err := c.get(ctx, "/api/v1/log-levels", nil, &levels); err != nil {
		return err
	}
	t := newTable(false, 1)
	t.row("COMPONENT", "LEVEL", "SET BY")
	for _, name := range sortedKeys(levels) {
		l := levels[name]
		by := "configuration"
		if l.Overridden {
			by = "operator; configured is " + l.Configured
		}
		t.row(name, l.Level, by)
	}
	return t.write(out)
}

// SetLogLevel sets the level of a component, or resets it when level is empty.
func SetLogLevel(ctx context.Context, c *Client, component, level string) (string, error) {
	path := "/api/v1/log-levels/" + url.PathEscape(component)
	if level == "" {
		return c.Change(ctx, http.MethodDelete, path, nil)
	}
	return c.Change(ctx, http.MethodPut, path, map[string]string{"level": level})
}
