package host

import "os"

// testChild is what the test binary does as a module process of other kinds.
func testChild([]string) { os.Exit(9) }
