package modules

import (
	"cmp"
	"slices"
	"strings"

	"external-server/internal/config"
	"external-server/internal/module"
	"external-server/internal/module/host"
)

// Info describes a module that is loaded.
type Info struct {
	Number int32
	Kind   string // library, isolated library, command, builtin
	Name   string // path, command line or name
	// Process of a module that runs in one of its own, else nil.
	Process *module.ProcessState
}

// List describes the modules that are loaded, by number and name.
func (s *Set) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Info, 0, len(s.made))
	for key, made := range s.made {
		info := Info{Number: made.Number()}
		info.Kind, info.Name = kindAndName(s.origin[key])
		if m, ok := made.(*host.Module); ok {
			state := m.State()
			info.Process = &state
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func kindAndName(m config.Module) (kind, name string) {
	switch {
	case m.Builtin != "":
		return "builtin", string(m.Builtin)
	case len(m.Command) > 0:
		return "command", strings.Join(m.Command, " ")
	case m.Isolation == config.IsolationNone:
		return "library", m.LibPath
	}
	return "isolated library", m.LibPath
}
