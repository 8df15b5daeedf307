// Package fleetapi holds the modules that are part of the server: mission (1),
// io (2) and transparent (3). They serve the Fleet Protocol HTTP API with the
// same requests, checks and results as the module libraries written in C++
// (MM-1 to MM-60); docs/built-in-modules.md lists where they
// differ on purpose.
//
// A status is checked and queued by ForwardStatus and posted by a goroutine
// that lives as long as the queue holds anything. Commands come by long polls
// made in WaitCommands. An Instance at rest owns no goroutine, no timer and no
// connection besides its long poll.
//
// The package may import fleet, config, logging, module, module/spool and
// httpapi. It knows nothing of cars' sessions.
package fleetapi
