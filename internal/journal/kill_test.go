package journal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"external-server/internal/support/testchild"
)

func TestMain(m *testing.M) {
	testchild.Run(writeForEver)
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
		child := testchild.Start(t, dir)
		after := random.IntN(60) // lines; the process is further by what the pipe holds
		for seen := 0; ; seen++ {
			line, more := child.Line()
			if !more {
				break
			}
			n, err := strconv.Atoi(line)
			if err != nil {
				t.Fatalf("kill %d, seed %d: the process says %q", kill, seed, line)
			}
			if n != last+1 && seen > 0 || n < last+1 || n > last+2 {
				t.Errorf("kill %d, seed %d: round %d after round %d", kill, seed, n, last)
			}
			last = n
			if seen == after {
				child.Kill()
			}
		}
		child.WaitKilled()
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
