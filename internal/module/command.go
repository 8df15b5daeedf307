package module

import (
	"fmt"

	"github.com/fleet-protocol/external-server/sdk/module/moduleproto"

	"external-server/internal/fleet"
)

const (
	// MaxDeviceText is how many bytes the role or the name of a device may have in a
	// command.
	MaxDeviceText = moduleproto.MaxDeviceText
	// MaxCommandData is how many bytes of data a command may have.
	MaxCommandData = moduleproto.MaxCommandData
)

// UnusableError tells of commands that a module handed out and no car can be
// sent. They were dropped; those beside them were not.
type UnusableError struct {
	Commands int    // how many
	Reason   string // of the first one, with what to do about it
	Err      error  // what else went wrong, or nil
}

func (e *UnusableError) Error() string {
	text := fmt.Sprintf("%d commands were dropped: %s", e.Commands, e.Reason)
	if e.Err != nil {
		text += "; " + e.Err.Error()
	}
	return text
}

// Unwrap returns what else went wrong.
func (e *UnusableError) Unwrap() error { return e.Err }

// CommandFault tells why the command can be sent to no car: it is too large, or
// its role or name is not UTF-8, which no protobuf message carries (DEF-34). It
// returns "" for any other command.
func CommandFault(c *fleet.Command) string {
	return moduleproto.CommandFault(c.Data, c.Device.Role, c.Device.Name)
}

// UsableCommands takes the commands out that can be sent to no car, in place, and
// tells of them.
func UsableCommands(commands []fleet.Command) ([]fleet.Command, *UnusableError) {
	var unusable *UnusableError
	usable := commands[:0]
	for i := range commands {
		if fault := CommandFault(&commands[i]); fault != "" {
			unusable = unusable.Add(fault)
			continue
		}
		usable = append(usable, commands[i])
	}
	clear(commands[len(usable):])
	return usable, unusable
}

// Add counts one more command; e may be nil.
func (e *UnusableError) Add(reason string) *UnusableError {
	if e == nil {
		e = &UnusableError{Reason: reason}
	}
	e.Commands++
	return e
}

// With joins what else went wrong and returns the error of a whole request for
// commands; e may be nil.
func (e *UnusableError) With(err error) error {
	if e == nil {
		return err
	}
	e.Err = err
	return e
}
