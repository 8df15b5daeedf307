package journal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// killDir tells the test binary that it is the process to be killed.
const killDir = "JOURNAL_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Println("error", writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func killOptions(dir string) Options {
	opts := options(dir)
	opts.SegmentBytes = 1500
	return opts
}

// writeForEver goes on with the rounds where the journal ends, and tells on
// standard output which round it has written. Every 100th round it begins anew.
func writeForEver(dir string) error {
	j, err := Open(killOptions(dir))
	if err != nil {
		return err
	}
	n, err := lastRound(j.Replayed())
	if err != nil {
		return err
	}
	for n++; ; n++ {
		if n%100 == 0 {
			j.Restart()
			state(n).Snapshot(func(r []byte) { j.Append(r) })
		}
		for _, r := range round(n) {
			j.Append([]byte(r))
		}
		if err := j.Flush(); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// lastRound checks that the state is exactly that after some round, and returns it.
func lastRound(fold Fold) (int, error) {
	got := fold.(table)
	if len(got) == 0 {
		return 0, nil
	}
	n, err := strconv.Atoi(got["a"])
	if err != nil {
		return 0, err
	}
	if expected := state(n); fmt.Sprint(got) != fmt.Sprint(expected) {
		return 0, fmt.Errorf("after round %d there is %v, expected %v", n, got, expected)
	}
	return n, nil
}

// TestKill kills a process that writes 200 times at random moments. Each next one
// finds everything whose Flush had returned, whole batches only, and goes on.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	last := 0
	for kill := range 200 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := random.IntN(60) // lines; the process is further by what the pipe holds
		lines := bufio.NewScanner(out)
		for seen := 0; lines.Scan(); seen++ {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Errorf("kill %d, seed %d: the process says %q", kill, seed, lines.Text())
				break
			}
			if n != last+1 && seen > 0 || n < last+1 || n > last+2 {
				t.Errorf("kill %d, seed %d: round %d after round %d", kill, seed, n, last)
			}
			last = n
			if seen == after {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("kill %d, seed %d: the process ended with %v", kill, seed, err)
		}
		fold, err := Salvage(killOptions(dir))
		if err != nil {
			t.Fatalf("kill %d, seed %d: %v", kill, seed, err)
		}
		n, err := lastRound(fold)
		if err != nil || n < last || n > last+1 {
			t.Fatalf("kill %d, seed %d: round %d was written, there is round %d, %v", kill, seed, last, n, err)
		}
	}
	if last < 200 {
		t.Errorf("only %d rounds were written", last)
	}
}
