// Package session is the core of the server: the protocol of one car as a state
// machine without socket, clock, goroutine or log (chapters 4 and 5 of the
// protocol).
//
// The owner of a Session calls Step with one Event and the current time, and
// performs the returned Effects in order before it calls Step again. It arms
// one timer for Deadline and calls Step with EventDeadline when it is due. That
// is the whole contract:
//
//   - Step is not safe for concurrent use and never blocks. It runs on the goroutine
//     that reads the messages of all cars of a connection. So Modules answers from
//     memory: it must not call a module, ask a module's process, wait for either or
//     take a lock that somebody holds while doing so. What only a module knows,
//     whether it serves a device type and whether it takes a device, is asked with
//     EffectAskType and EffectDeviceConnected, and the answer is an event.
//   - The returned slice is valid until the next call of Step.
//   - Time never comes from anywhere but the argument; it need not be wall time.
//   - An EffectForward is a promise: Modules.Room was asked in the same Step,
//     so the owner must be able to queue what the Session forwards.
//
// A rule of the protocol is found in this package and nowhere else; each
// decision names its rule id. The scripts in testdata are the readable
// specification.
//
// The package may import fleet and nothing that does I/O.
package session
