package module

import (
	"fmt"
	"unicode/utf8"

	"external-server/internal/fleet"
)

const (
	// MaxDeviceText is how many bytes the role or the name of a device may have in a
	// command. Roles and names are remembered and logged in many places.
	MaxDeviceText = 4096
	// MaxCommandData is how many bytes of data a command may have. With role and name
	// it fits into a message that the link and the embedded broker always take (4 MiB).
	MaxCommandData = 4_000_000
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

// CommandTooLarge tells by the sizes in bytes why a command is too large for any
// car, with what to do about it; "" if it is not.
func CommandTooLarge(data, role, name uint64) string {
	switch {
	case role > MaxDeviceText:
		return fmt.Sprintf("its device role has %d bytes, the limit is %d; correct the module", role, MaxDeviceText)
	case name > MaxDeviceText:
		return fmt.Sprintf("its device name has %d bytes, the limit is %d; correct the module", name, MaxDeviceText)
	case data > MaxCommandData:
		return fmt.Sprintf("its data has %d bytes, the limit is %d; let the module send less, or several commands", data, MaxCommandData)
	}
	return ""
}

// CommandFault tells why the command can be sent to no car: it is too large, or
// its role or name is not UTF-8, which no protobuf message carries (DEF-34). It
// returns "" for any other command.
func CommandFault(c *fleet.Command) string {
	if fault := CommandTooLarge(uint64(len(c.Data)), uint64(len(c.Device.Role)), uint64(len(c.Device.Name))); fault != "" {
		return fault
	}
	if !utf8.ValidString(c.Device.Role) {
		return fmt.Sprintf("its device role is not UTF-8: %s; correct the module", excerpt(c.Device.Role))
	}
	if !utf8.ValidString(c.Device.Name) {
		return fmt.Sprintf("its device name is not UTF-8: %s; correct the module", excerpt(c.Device.Name))
	}
	return ""
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

// excerpt makes bytes printable and short.
func excerpt(text string) string {
	const limit = 64
	if len(text) > limit {
		return fmt.Sprintf("%+q...", text[:limit])
	}
	return fmt.Sprintf("%+q", text)
}
