// Package console is the operator's command line: it asks the admin endpoint of a
// running server and prints what it says, and it listens to the traffic of a
// broker. What cars and modules say reaches a terminal only without control
// characters.
//
// It imports protocol and fleet to read messages, process to see a server end, nothing of the server itself.
package console
