package console

import (
	"fmt"
	"os"
	"time"
)

// Terminal tells whether the file is a terminal that wants colours.
func Terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Colours of terminals.
const (
	plain  = ""
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	blue   = "\x1b[36m"
	reset  = "\x1b[0m"
)

// Good is the colour of what is as it should be; a text stays plain when colours
// are not wanted.
func Good(colours bool, text string) string { return paint(colours, green, text) }

// Bad is the colour of what is wrong.
func Bad(colours bool, text string) string { return paint(colours, red, text) }

// Dim is the colour of what matters less.
func Dim(colours bool, text string) string { return paint(colours, dim, text) }

// paint colours a text when colours are wanted.
func paint(colours bool, colour, text string) string {
	if !colours || colour == plain {
		return text
	}
	return colour + text + reset
}

// ago says how long ago something was.
func ago(now time.Time, t *time.Time) string {
	if t == nil || t.IsZero() {
		return "never"
	}
	return duration(now.Sub(*t))
}

// duration is short: the two largest units.
func duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
