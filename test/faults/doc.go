// Package faults breaks things around the real server, built with the race
// detector, and counts what becomes of every status: sent by a car, answered by the
// server, delivered to a module. What was answered must be delivered.
//
// `make test` runs a representative part with small fleets, `make faults` all of it
// with the time limits of the real gateway, `make faults-table` writes the result
// into docs/reliability.md. Some faults need root on Linux: a file system that is
// full or read-only, a name that does not resolve.
//
// Besides the faults: a model test of the whole process, replacement by another
// version under load, a soak, and tests of what docs/security.md promises.
//
// The package has tests only; nothing may import it.
package faults
