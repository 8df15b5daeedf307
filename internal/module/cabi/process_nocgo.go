//go:build !cgo || !linux

package cabi

// BufferLines does nothing where no library can be hosted.
func BufferLines() {}

// ReportCrashes does nothing where no library can be hosted.
func ReportCrashes() {}

// GuardEnv has no effect where no library can be hosted.
const GuardEnv = "FLEET_MODULE_GUARD"

// ViolationPrefix starts a line about a violation.
const ViolationPrefix = "module-check: "
