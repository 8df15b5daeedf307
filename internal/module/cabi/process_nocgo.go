//go:build !cgo || !linux

package cabi

import (
	"os"
	"time"
)

// Guard does nothing where no library can be hosted.
func Guard(*os.File, time.Duration) error { return nil }

// ReportCrashes does nothing where no library can be hosted.
func ReportCrashes() {}

// EndGroup ends this process.
func EndGroup() { os.Exit(1) }

// GuardEnv has no effect where no library can be hosted.
const GuardEnv = "FLEET_MODULE_GUARD"

// ViolationPrefix starts a line about a violation.
const ViolationPrefix = "module-check: "
