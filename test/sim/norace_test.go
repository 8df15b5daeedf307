//go:build !race

package sim

const detected = false
