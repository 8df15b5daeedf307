package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"external-server/internal/admin"
	"external-server/internal/broker"
	"external-server/internal/car"
	"external-server/internal/config"
	apiserver "external-server/internal/httpapi/server"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/module/fleetapi"
	"external-server/internal/observe"
	"external-server/internal/session"
	"external-server/internal/state/process"
)

// sources are asked when everything has been built.
func (a *App) sources() observe.Sources {
	s := observe.Sources{
		Cars:      a.Cars,
		Link:      func() link.State { return a.link.State() },
		Processes: a.modules.Processes,
		Broker: func() (broker.Stats, bool) {
			if a.broker == nil {
				return broker.Stats{}, false
			}
			return a.broker.Stats(), true
		},
		HTTPAPI: func() (apiserver.Stats, bool) {
			if a.api == nil {
				return apiserver.Stats{}, false
			}
			return a.api.Stats(), true
		},
	}
	s.Stores = a.stores
	s.Declined, s.GivenUp, s.SetAside = a.journals.Declined, a.journals.GivenUp, a.journals.SetAside
	s.Cluster = a.cluster.state
	if a.logs != nil {
		s.LogLost = a.logs.Lost
	}
	return s
}

// AdminAddr is the address of the admin endpoint, or nil without one.
func (a *App) AdminAddr() net.Addr {
	if a.admin == nil {
		return nil
	}
	return a.admin.Addr()
}

// operator is the App as the admin endpoint sees it. It implements admin.Source.
type operator struct{ a *App }

func (o operator) Company() string      { return o.a.Config().Company }
func (o operator) Cars() []car.Snapshot { return o.a.Cars() }
func (o operator) Link() link.State     { return o.a.link.State() }

func (o operator) Car(name string) (car.Snapshot, bool) {
	c, ok := o.a.roster.Find(name)
	if !ok {
		return car.Snapshot{}, false
	}
	return c.Snapshot(), true
}

func (o operator) Labels(car string) map[string]string { return o.a.roster.Labels(car) }

func (o operator) API() http.RoundTripper {
	if o.a.api == nil {
		return nil
	}
	return o.a.api.RoundTripper()
}

func (o operator) CheckCommand(car string, module int32, data []byte) ([]byte, error) {
	if m, ok := o.a.roster.Module(car, module); ok && m.Builtin != "" {
		delivered, err := fleetapi.CheckCommand(string(m.Builtin), data)
		if err != nil {
			return nil, fmt.Errorf("the module %s refuses it: %w", m.Builtin, err)
		}
		return delivered, nil
	}
	return data, nil
}

func (o operator) Modules() []admin.ModuleInfo {
	made := o.a.modules.List()
	out := make([]admin.ModuleInfo, len(made))
	for i, m := range made {
		out[i] = admin.ModuleInfo(m)
	}
	return out
}

func (o operator) Components() []admin.Component {
	link := o.a.link.State()
	c := admin.Component{Name: "broker connection", Ready: link.Up}
	if !link.Up {
		c.Reason = "not connected"
		switch {
		case link.Stopped != "":
			c.Reason = "this server has stopped serving: " + link.Stopped
		case link.Refused > 0:
			c.Reason = fmt.Sprintf("the broker refuses the subscription to %s; %d refused, asked again every 30 s", link.RefusedTopic, link.Refused)
		case link.LastError != "":
			c.Reason += ": " + link.LastError
		}
	}
	out := []admin.Component{c}
	for _, p := range o.a.modules.Processes() {
		c := admin.Component{Name: "module " + p.Name, Ready: p.Ready && !p.OutOfService && !p.Silent}
		switch {
		case c.Ready && p.Slow != "":
			c.Reason = "waits for " + p.Slow
		case c.Ready:
		case p.OutOfService:
			c.Reason = "out of service, it failed too often: " + p.LastExit
		case p.Silent:
			c.Reason = "its process hangs: it does not answer"
		case p.LastExit != "":
			c.Reason = "its process is being started anew: " + p.LastExit
		default:
			c.Reason = "its process is being started"
		}
		out = append(out, c)
	}
	if r := o.a.cluster.replica; r != nil {
		ready, reason := r.Ready()
		out = append(out, admin.Component{Name: "cluster", Ready: ready, Reason: reason})
	}
	for _, s := range o.a.stores() {
		out = append(out, admin.Component{Name: s.Name, Ready: s.Fault == "", Reason: s.Fault})
	}
	return out
}

func (o operator) Disconnect(name string) error {
	c, ok := o.a.roster.Find(name)
	if !ok {
		return admin.ErrNoCar
	}
	c.Disconnect()
	return nil
}

func (o operator) Reannounce(name string) error {
	c, ok := o.a.roster.Find(name)
	if !ok {
		return admin.ErrNoCar
	}
	if p := c.Snapshot().Phase; p != session.PhaseWaiting && p != session.PhaseRunning {
		return admin.ErrNotNow
	}
	c.Reannounce()
	return nil
}

func (o operator) Reload(ctx context.Context) (string, error) {
	// A reload that has begun is finished, also when the client has gone.
	changes, err := o.a.ReloadFile(context.WithoutCancel(ctx))
	return changes.String(), err
}

func (o operator) Stop(final bool) (text string, self process.ID, err error) {
	if self, err = process.Self(); err != nil {
		return "", self, err
	}
	text = "the server stops: sessions end, gateways are told"
	switch durable := o.a.journals.Durable(); {
	case durable && (final || o.a.Config().OnStop == config.OnStopNotify):
		text = "the server stops for good: sessions end, gateways are told, nothing is kept for the next start"
	case durable:
		text = "the server stops: the next start goes on with the sessions, no gateway is told"
	}
	if !o.a.Stop(final) {
		err = admin.ErrStopping
		if final {
			err = fmt.Errorf("%w, and the first request has decided whether sessions are kept: to end kept ones, start it again and stop it for good then", err)
		}
	}
	return text, self, err
}

var errNoLevels = errors.New("log levels cannot be changed here")

func (o operator) LogLines(least slog.Level, most int, want func(*logging.Line) bool) []logging.Line {
	if o.a.logs == nil {
		return nil
	}
	return o.a.logs.Recent(least, most, want)
}

func (o operator) LogLevels() map[string]logging.ComponentLevel {
	if o.a.logs == nil {
		return nil
	}
	return o.a.logs.Levels()
}

func (o operator) SetLogLevel(component string, level slog.Level) error {
	if o.a.logs == nil {
		return errNoLevels
	}
	return o.a.logs.SetLevel(component, level)
}

func (o operator) ResetLogLevel(component string) error {
	if o.a.logs == nil {
		return errNoLevels
	}
	return o.a.logs.ResetLevel(component)
}

var _ admin.Source = operator{}
