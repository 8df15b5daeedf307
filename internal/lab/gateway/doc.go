// Package gateway is a faithful module gateway: the program in the car that the
// server talks to (GW-1 to GW-61). Tests, the demo, `simulate` and
// `bench` use it; the server proper never imports it.
//
// Core is the gateway's side of the protocol as a state machine without socket,
// clock, goroutine or log. Its owner calls Step with one Event and the current
// time, performs the returned Effects in order, and calls Step with
// EventDeadline when Deadline is due. Step is not safe for concurrent use, never
// blocks, and its result is valid until the next call. All randomness comes from
// Options.Rand, so a run with one seed repeats exactly.
//
// What the real gateway does is done here too, also where it is odd: its timeouts
// (GW-1 to GW-7), its strictness (GW-30 to GW-44), its list of connected devices
// that is not cleared on reconnect (GW-52). Whatever would make the real one drop
// the connection is reported to the owner as a Reason that names the rule.
//
// Gateway runs a Core over a real MQTT broker (CONN-1 to CONN-9), alone on its connection
// as in a car, or many gateways on a few shared connections.
//
// The package may import fleet, protocol and link/mqtt/wire, nothing else of the
// project.
package gateway
