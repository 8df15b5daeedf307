package library

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if arg := os.Getenv(loadVariable); arg != "" {
		if err := loadMain(arg); err != nil {
			fmt.Fprintln(os.Stderr, "load:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	m.Run()
}
