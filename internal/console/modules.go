package console

import (
	"context"
	"fmt"
	"io"
	"time"
)

// moduleBrief is what the table needs of a module.
type moduleBrief struct {
	Number        int     `json:"number"`
	Kind          string  `json:"kind"`
	Name          string  `json:"name"`
	Cars          int     `json:"cars"`
	Queued        int     `json:"queued"`
	OldestSeconds float64 `json:"oldest_seconds"`
	Statuses      uint64  `json:"statuses"`
	Errors        uint64  `json:"errors"`
	Lost          uint64  `json:"lost"`
	Process       *struct {
		PID          int        `json:"pid"`
		Ready        bool       `json:"ready"`
		OutOfService bool       `json:"out_of_service"`
		Restarts     uint64     `json:"restarts"`
		LastExit     string     `json:"last_exit"`
		LastExitAt   *time.Time `json:"last_exit_at"`
	} `json:"process"`
	API *struct {
		Up            bool    `json:"up"`
		Queued        int     `json:"queued"`
		OldestSeconds float64 `json:"oldest_seconds"`
	} `json:"api"`
}

// Modules prints the table of modules: their state, their processes, and what waits
// for them. What ended a process, or keeps an API from being reached, follows.
func Modules(ctx context.Context, c *Client, out io.Writer, colours bool) error {
	var list struct {
		Modules []moduleBrief `json:"modules"`
	}
	if err := c.get(ctx, "/api/v1/modules", nil, &list); err != nil {
		return err
	}
	now := time.Now()
	table := newTable(colours, 1)
	table.row("MODULE", "STATE", "CARS", "PROCESS", "RESTARTS", "QUEUED", "OLDEST", "STATUSES", "ERRORS", "LOST", "NAME")
	for i := range list.Modules {
		m := &list.Modules[i]
		process, restarts := "-", "-"
		if p := m.Process; p != nil {
			restarts = fmt.Sprint(p.Restarts)
			if p.PID > 0 {
				process = fmt.Sprint(p.PID)
			}
		}
		queued, oldest := m.Queued, m.OldestSeconds
		if m.API != nil {
			queued, oldest = queued+m.API.Queued, max(oldest, m.API.OldestSeconds)
		}
		age := "-"
		if queued > 0 {
			age = duration(time.Duration(oldest * float64(time.Second)))
		}
		table.row(fmt.Sprint(m.Number), m.state(), fmt.Sprint(m.Cars), process, restarts, fmt.Sprint(queued), age,
			fmt.Sprint(m.Statuses), fmt.Sprint(m.Errors), fmt.Sprint(m.Lost), m.Kind+" "+m.Name)
	}
	if err := table.write(out); err != nil {
		return err
	}
	for i := range list.Modules {
		if p := list.Modules[i].Process; p != nil && p.LastExit != "" {
			if _, err := fmt.Fprintf(out, "module %d: its process ended %s ago: %s\n", list.Modules[i].Number, ago(now, p.LastExitAt), Clean(p.LastExit)); err != nil {
				return err
			}
		}
	}
	return nil
}

// state is one word; the colours know it.
func (m *moduleBrief) state() string {
	switch {
	case m.Process != nil && m.Process.OutOfService:
		return "out-of-service"
	case m.Process != nil && !m.Process.Ready:
		return "starting"
	case m.API != nil && !m.API.Up:
		return "no-api"
	}
	return "running"
}
