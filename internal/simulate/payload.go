package simulate

import (
	"bytes"
	"fmt"
)

// statusFor returns a status that the module accepts, size bytes long where that
// is possible. Modules 1 to 3 take JSON (MM-21, MM-32, MM-41); JSON does not hurt
// others.
func statusFor(module int32, size int) []byte {
	text := `{"pressed":false%s}`
	if module == 1 {
		text = `{"telemetry":{"speed":7.5,"fuel":0.8,"position":{"latitude":49.2,"longitude":16.6,"altitude":250}},"state":"DRIVE","nextStop":null%s}`
	}
	const pad = `,"pad":""`
	short := fmt.Sprintf(text, "")
	if missing := size - len(short) - len(pad); missing >= 0 {
		return fmt.Appendf(nil, text, fmt.Sprintf(`,"pad":"%s"`, bytes.Repeat([]byte("x"), missing)))
	}
	return []byte(short)
}
