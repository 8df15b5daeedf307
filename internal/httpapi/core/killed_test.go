package core

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
)

// TestOneBadPostDoesNotHarmOthers: a post that the database refuses fails alone.
func TestOneBadPostDoesNotHarmOthers(t *testing.T) {
	name := apitest.TempStore(t).Reveal()
	c := startCore(t, name, Options{})
	postStatus(t, c, apitest.Car1, apitest.Status(1, 1, "r", `"before"`))
	apitest.Inject(t, name, `CREATE TRIGGER refuse BEFORE INSERT ON fleet_messages WHEN NEW.role = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END`)
	var posts []*post
	for _, role := range []string{"good_1", "bad", "good_2"} {
		posts = append(posts, &post{car: apitest.Car1, messages: []httpapi.Message{apitest.Status(1, 1, role, `{}`)}, result: make(chan error, 1)})
	}
	c.Close() // the test takes the writer's place
	if c.writeBatch(posts) {
		t.Error("the store was given up")
	}
	for i, want := range []int{0, 500, 0} {
		if got := httpapi.StatusOf(<-posts[i].result); got != want {
			t.Errorf("post %d: %d, expected %d", i, got, want)
		}
	}
}

// TestKilledServerLosesNothingAcknowledged kills a process while it stores and
// looks for everything it had acknowledged.
func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), killedStore+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for lines := bufio.NewScanner(out); lines.Scan(); acknowledged++ {
		if acknowledged == 300 {
			_ = child.Process.Kill() // what it writes until it is dead counts as well
		}
	}
	_ = child.Wait()
	if acknowledged < 300 {
		t.Fatalf("the process ended after %d posts", acknowledged)
	}
	c := startCore(t, "sqlite:"+path, Options{})
	got, err := c.Statuses(context.Background(), apitest.Car1, httpapi.Query{})
	if err != nil || len(got) < acknowledged {
		t.Errorf("%d statuses stored, %d acknowledged, %v", len(got), acknowledged, err)
	}
	postCommand(t, c, apitest.Car1, apitest.Command(1, 1, "r", `{}`)) // the device is still known
}

// killedStore is the variable that turns the test program into a server that
// stores until it is killed.
const killedStore = "FLEET_TEST_KILLED_STORE"

func storeUntilKilled(path string) error {
	c := New(Options{Open: func(ctx context.Context) (store.Store, error) { return store.Open(ctx, "sqlite:"+path) }})
	if err := c.Begin(context.Background()); err != nil {
		return err
	}
	for n := 0; ; n++ {
		if err := c.PostStatuses(context.Background(), apitest.Car1, []httpapi.Message{apitest.Status(1, 1, "r", fmt.Sprint("[", n, "]"))}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}
