package app

import (
	"fmt"

	"external-server/internal/observe"
)

// stores are the places on disk that the server writes to, as far as it has them, with
// what is wrong with them.
func (a *App) stores() []observe.Store {
	var out []observe.Store
	if a.logs != nil && a.logs.HasFile() {
		s := observe.Store{Name: "log file"}
		if err := a.logs.Fault(); err != nil {
			s.Fault = "lines wait in memory, the oldest are kept: " + err.Error()
		}
		out = append(out, s)
	}
	if fault, used := a.modules.Spools(); used {
		out = append(out, observe.Store{Name: "spool", Fault: fault})
	}
	if a.Config().StateDirectory != "" {
		out = append(out, observe.Store{Name: "state directory", Fault: a.journals.Fault()})
	}
	if a.api != nil {
		s := observe.Store{Name: "http api"}
		if fault := a.api.Stats().StoreFault; fault != "" {
			s.Fault = fmt.Sprintf("message store: %s", fault)
		}
		out = append(out, s)
	}
	return out
}
