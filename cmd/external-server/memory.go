package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// guardMemory keeps the memory of the server, and with it passwords and keys, from
// core dumps and from other processes of the same user, module processes among them.
func guardMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("memory cannot be kept from core dumps: %w", err)
	}
	return nil
}
