package app

import (
	"cmp"
	"slices"
	"strings"

	"external-server/internal/admin"
	"external-server/internal/config"
	"external-server/internal/module/host"
)

// describe lists the modules that are loaded, by number and name.
func (l *libraries) describe() []admin.ModuleInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]admin.ModuleInfo, 0, len(l.made))
	for key, made := range l.made {
		info := admin.ModuleInfo{Number: made.Number()}
		info.Kind, info.Name = kindAndName(l.origin[key])
		if m, ok := made.(*host.Module); ok {
			state := m.State()
			info.Process = &state
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b admin.ModuleInfo) int {
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
