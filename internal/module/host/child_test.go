package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/support/idlemodule"
)

// testChild is what the test binary does as a process of other kinds.
func testChild(args []string) {
	switch args[0] {
	case "server":
		server(args[1:])
	case "idle":
		idlemodule.Serve()
	case "garbage":
		f := os.NewFile(3, "socket")
		fmt.Fprint(f, "GET / HTTP/1.1\r\n\r\n")
		_, _ = f.Read(make([]byte, 10))
	}
	os.Exit(9)
}

// server is a server with one module, whose context does what the attack says. It
// prints the number of the module process and waits to be killed. Its arguments are
// the attack, the file "gate" and the module: a library or a command.
func server(args []string) {
	attack, gate, command := args[0], args[1], args[2:]
	opts := Options{Expect: 66, CallTimeout: time.Hour, Command: command}
	if len(command) == 1 {
		opts = ForLibrary(command[0], opts)
	} else {
		opts.Expect = 0
	}
	m, err := Open(context.Background(), opts)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	car, err := m.Open(context.Background(), spec("car", "", "gate="+gate, "attack="+attack))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		_ = car.ForwardStatus(context.Background(), fleet.Device{Module: 66, Role: "r"}, nil)
	}()
	fmt.Println(m.State().PID)
	select {}
}

// buildC compiles a program from testdata.
func buildC(dir, source string) (string, error) {
	out := filepath.Join(dir, "program")
	text, err := exec.Command("gcc", "-O1", "-w", "-o", out, "testdata/"+source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc: %w\n%s", err, text)
	}
	return out, nil
}
