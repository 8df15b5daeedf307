// Package sim proves the core by deterministic simulation: one session of
// package session, a model of the module gateway (the GW rules of docs/protocol.md),
// modelled modules with their bounded queues, and a virtual network that delays,
// loses, duplicates, reorders and cuts. One seed is one history: the same seed
// plays the same events in the same order at the same virtual times.
//
// After every step of the core an auditor compares what it did with what the
// protocol promises (see audit.go). The auditor and the gateway are written from
// the protocol, not from the core, and share no code with it.
//
// Two further kinds of histories have a broker that keeps what comes, hands the server's
// messages on byte by byte and ends a connection when another one comes with the same
// client identifier: in one (durable*.go) the server dies and goes on from its journal, in the other (cluster*.go) two or
// three servers serve the car in turn, assigned by a model of etcd and fenced by the broker.
//
// A history that fails is shrunk to the faults and actions it needs (Shrink) and
// can be played again from its seed.
//
// The package may import session and fleet, nothing that does I/O or reads a
// clock. It is imported by tests only.
package sim
