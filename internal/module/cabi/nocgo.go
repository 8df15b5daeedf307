//go:build !cgo

package cabi

import (
	"context"
	"errors"

	"external-server/internal/module"
)

// Available tells whether this program can load module libraries.
const Available = false

// errNoCgo is the answer of a server that was built without a C compiler: such
// a server runs everything but libraries in its own process.
var errNoCgo = errors.New("this server was built without cgo and cannot load module libraries; " +
	"build it with CGO_ENABLED=1 and a C compiler")

// Library exists without cgo so that its users compile; Open never returns one.
type Library struct{}

// Open always fails in a build without cgo.
func Open(string, Options) (*Library, error) { return nil, errNoCgo }

// Number returns 0.
func (*Library) Number() int32 { return 0 }

// Supports returns false.
func (*Library) Supports(uint32) bool { return false }

// Open always fails in a build without cgo.
func (*Library) Open(context.Context, module.InstanceSpec) (module.Instance, error) {
	return nil, errNoCgo
}

// Close does nothing.
func (*Library) Close() error { return nil }
