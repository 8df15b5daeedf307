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
