package moduleproto

import (
	"fmt"
	"unicode/utf8"
)

const (
	// MaxDeviceText is how many bytes the role or the name of a device may have in a
	// command. Roles and names are remembered and logged in many places.
	MaxDeviceText = 4096
	// MaxCommandData is how many bytes of data a command may have. With role and name
	// it fits into a message that the server's link to the cars always takes (4 MiB).
	MaxCommandData = 4_000_000
)

// CommandTooLarge tells by the sizes in bytes why a command is too large for any
// car, with what to do about it. It returns "" if the command is not too large.
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

// CommandFault tells why a command can be sent to no car: it is too large, or the
// role or the name of its device is not UTF-8, which no protobuf message carries
// (DEF-34). It returns "" for any other command.
func CommandFault(data []byte, role, name string) string {
	if fault := CommandTooLarge(uint64(len(data)), uint64(len(role)), uint64(len(name))); fault != "" {
		return fault
	}
	if !utf8.ValidString(role) {
		return fmt.Sprintf("its device role is not UTF-8: %s; correct the module", excerpt(role))
	}
	if !utf8.ValidString(name) {
		return fmt.Sprintf("its device name is not UTF-8: %s; correct the module", excerpt(name))
	}
	return ""
}

// excerpt makes bytes printable and short.
func excerpt(text string) string {
	const limit = 64
	if len(text) > limit {
		return fmt.Sprintf("%+q...", text[:limit])
	}
	return fmt.Sprintf("%+q", text)
}
