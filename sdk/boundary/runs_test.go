package boundary

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// gated is a module whose calls wait for the test when they carry "wait".
type gated struct {
	mu      sync.Mutex
	calls   []string
	entered chan struct{}
	release chan struct{}
}

func (*gated) Number() int32        { return 5 }
func (*gated) Supports(uint32) bool { return true }
func (g *gated) Open(_ context.Context, open *pb.Open) (Context, error) {
	return &gatedContext{g, open.GetContext()}, nil
}

type gatedContext struct {
	g  *gated
	id uint32
}

func (c *gatedContext) Call(_ context.Context, call *pb.Call) error {
	c.g.mu.Lock()
	c.g.calls = append(c.g.calls, fmt.Sprintf("%d:%s", c.id, call.GetData()))
	c.g.mu.Unlock()
	if string(call.GetData()) == "wait" {
		c.g.entered <- struct{}{}
		<-c.g.release
	}
	return nil
}
func (*gatedContext) Poll(context.Context, *pb.Poll, *Commands) error { return nil }
func (*gatedContext) Close(context.Context) error                     { return nil }

func (g *gated) made() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.calls)
}

// serveGated returns the server's end of the connection; the module has the given
// contexts, from 1 on.
func serveGated(t *testing.T, contexts int) (*gated, *Conn) {
	t.Helper()
	g := &gated{entered: make(chan struct{}, 100), release: make(chan struct{})}
	server, ours := pair(t)
	served := make(chan error, 1)
	go func() {
		served <- Serve(context.Background(), ours, "gated", func(int32) (Module, error) { return g, nil })
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	if err := server.Receive(&pb.ModuleFrame{}); err != nil {
		t.Fatal(err)
	}
	if r, _ := ask(t, server, start(5)); !r.GetCallsInOrder() {
		t.Fatal("the module does not say that it keeps the order of calls")
	}
	for n := range contexts {
		frame := open("car")
		frame.GetOpen().Context = uint32(n + 1)
		if r, _ := ask(t, server, frame); r.GetCode() != 0 {
			t.Fatal(r)
		}
	}
	return g, server
}

// post hands a call over as the server does.
func post(t *testing.T, server *Conn, id uint64, context uint32, data string) {
	t.Helper()
	frame := call(context, pb.Call_FORWARD_STATUS, 1, data)
	frame.Id = id
	if err := server.Post(frame); err != nil {
		t.Fatal(err)
	}
}

func answers(t *testing.T, server *Conn, n int) (ids []uint64) {
	t.Helper()
	for range n {
		frame := &pb.ModuleFrame{}
		if err := server.Receive(frame); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, frame.GetId())
	}
	return ids
}

// Calls of one context are made in the order of their frames, each after the answer to
// the one before; a call that does not come back keeps no other context waiting, nor the
// answers that are there already.
func TestCallsInOrder(t *testing.T) {
	g, server := serveGated(t, 4)
	post(t, server, 1, 1, "a")
	post(t, server, 2, 2, "b")
	post(t, server, 3, 1, "wait")
	post(t, server, 4, 1, "c")
	post(t, server, 5, 3, "wait")
	post(t, server, 6, 4, "d")
	post(t, server, 7, 2, "e")
	got := answers(t, server, 4) // all but those of the contexts 1 and 3, and the first of 1
	slices.Sort(got)
	if !slices.Equal(got, []uint64{1, 2, 6, 7}) {
		t.Errorf("answers to %v, expected 1 2 6 7", got)
	}
	<-g.entered
	<-g.entered
	if made := g.made(); slices.Contains(made, "1:c") {
		t.Errorf("a call was made beside another one of its context: %q", made)
	}
	close(g.release)
	got = answers(t, server, 3)
	slices.Sort(got)
	if !slices.Equal(got, []uint64{3, 4, 5}) {
		t.Errorf("answers to %v, expected 3 4 5", got)
	}
	var first []string
	for _, c := range g.made() {
		if c[0] == '1' {
			first = append(first, c)
		}
	}
	if !slices.Equal(first, []string{"1:a", "1:wait", "1:c"}) {
		t.Errorf("calls of context 1: %q", first)
	}
}

// As many calls may be stuck as there are contexts.
func TestStuckCalls(t *testing.T) {
	const contexts = 40
	g, server := serveGated(t, contexts)
	for n := range contexts {
		post(t, server, uint64(n+1), uint32(n+1), "wait")
	}
	for range contexts {
		<-g.entered
	}
	close(g.release)
	if got := answers(t, server, contexts); len(got) != contexts {
		t.Errorf("%d answers", len(got))
	}
}

// What is posted reaches the other side whole and in order, also beside other writes, and
// when the other side does not read for a while.
func TestPost(t *testing.T) {
	a, b := pair(t)
	const frames = 3000
	var flushes sync.WaitGroup
	defer flushes.Wait()
	data := make([]byte, 2000) // together more than a socket holds
	for n := range uint64(frames) {
		m := &pb.ServerFrame{Id: n + 1, Kind: &pb.ServerFrame_Call{Call: &pb.Call{Data: data[:n%2000]}}}
		if n%1000 == 999 {
			flushes.Go(func() { _ = a.FlushAll() })
		}
		if err := a.Post(m); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(frames) {
		frame := &pb.ServerFrame{}
		if err := b.Receive(frame); err != nil {
			t.Fatal(err)
		}
		if frame.GetId() != n+1 || len(frame.GetCall().GetData()) != int(n%2000) {
			t.Fatalf("frame %d with %d bytes, expected frame %d", frame.GetId(), len(frame.GetCall().GetData()), n+1)
		}
	}
}

// No call begins whose predecessor's answer has not reached the socket: the server would
// have both made again.
func TestNoCallWithoutAnswer(t *testing.T) {
	g := &gated{entered: make(chan struct{}, 1), release: make(chan struct{})}
	server, ours := pair(t)
	s := &side{conn: ours, mod: g, contexts: map[uint32]*lane{1: {context: &gatedContext{g, 1}}}}
	s.runs.late = func() { s.late(t.Context()) }
	defer s.runs.end()
	s.handle(t.Context(), call(1, pb.Call_FORWARD_STATUS, 1, "wait"))
	s.handle(t.Context(), call(1, pb.Call_FORWARD_STATUS, 1, "after"))
	s.run(t.Context())
	<-g.entered
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	close(g.release)
	s.calls.Wait()
	if made := g.made(); !slices.Equal(made, []string{"1:wait"}) {
		t.Errorf("calls %q", made)
	}
}
