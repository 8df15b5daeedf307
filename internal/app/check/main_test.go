package check

import (
	"testing"

	"external-server/internal/module/host"
)

func TestMain(m *testing.M) {
	host.RunIfHost() // the children that run module libraries are this program too
	m.Run()
}
