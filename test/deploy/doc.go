// Package deploytest tests what operators install: the container image, the
// compose files, the systemd unit and the packages. Without a container engine,
// it does what the Dockerfile says in plain folders and runs what comes out as
// the image would.
//
// It holds tests only.
package deploytest
