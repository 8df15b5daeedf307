//go:build race

package moduletest

// raced tells whether the race detector watches this program.
const raced = true
