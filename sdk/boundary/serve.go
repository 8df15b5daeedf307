package boundary

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// prefetched is how many device types are asked in advance, from 0 on, so that
// the server knows the answers without a round trip.
const prefetched = 256

// Module is what Serve serves. Its methods may be called concurrently. A Module that
// also has a method HeapBytes() uint64 reports the memory that it holds outside of Go.
type Module interface {
	// Number is the module number that the module itself reports (VOC-7).
	Number() int32
	// Supports tells whether the module serves the device type, without waiting.
	Supports(deviceType uint32) bool
	// Open makes the context of one car. The error goes to the server, see Error.
	Open(ctx context.Context, open *pb.Open) (Context, error)
}

// Context is a module's side of one car. The methods but Poll are called one at a
// time, Poll beside them. Messages are the module's own. Errors go to the server,
// see Error.
type Context interface {
	// Call is one of the functions of Call.Function.
	Call(ctx context.Context, call *pb.Call) error
	// Poll waits until there are commands, poll.timeout_ms at most, and gives them
	// to commands, oldest first. poll.hold is false, but for a Holder.
	Poll(ctx context.Context, poll *pb.Poll, commands *Commands) error
	// Close ends the context.
	Close(ctx context.Context) error
}

// Holder is a Context whose Poll waits without limit when poll.hold is true: until there
// are commands or ctx ends. Any other Context is called again at every timeout.
type Holder interface {
	Context
	// Waiting returns how long the wait inside the module has taken so far that is under
	// way in such a Poll, 0 if there is none. It returns at once.
	Waiting() time.Duration
}

// Loader makes the module once the server has told under which number it is
// configured (0: any). It may fail: the server gets the text.
type Loader func(number int32) (Module, error)

// Result codes of the module interface.
const (
	CodeNotOK            = -1
	CodeContextIncorrect = -11
)

// Error is an error of a module with a code of its own. Any other error reaches the
// server with CodeNotOK and its text.
type Error struct {
	Code int32
	Text string // may be empty: the code says it all
}

// Error tells code and text.
func (e *Error) Error() string {
	if e.Text != "" {
		return e.Text
	}
	return fmt.Sprintf("code %d", e.Code)
}

// side is the state of one connection.
type side struct {
	conn *Conn
	load Loader

	mod      Module
	mu       sync.Mutex
	contexts map[uint32]*lane
	calls    sync.WaitGroup
	polls    heldPolls
	runs     runs
}

// Serve speaks the protocol until the server ends the connection, which is no
// error. name is for the server's log. Calls that are still inside the module
// then are left alone: the caller is expected to end the process.
func Serve(ctx context.Context, conn *Conn, name string, load Loader) error {
	s := &side{conn: conn, load: load, contexts: map[uint32]*lane{}, polls: heldPolls{held: map[uint32]*heldPoll{}}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.runs.late = func() { s.late(ctx) }
	defer s.runs.end()
	if err := conn.Send(&pb.ModuleFrame{Kind: &pb.ModuleFrame_Hello{Hello: &pb.Hello{Protocol: Protocol, Name: text(name)}}}); err != nil {
		return fmt.Errorf("cannot greet the server: %w", err)
	}
	for {
		frame := &pb.ServerFrame{}
		err := conn.Receive(frame)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
			errors.Is(err, syscall.ECONNRESET): // it ended with answers unread
			return nil
		case err != nil:
			return fmt.Errorf("connection to the server: %w", err)
		}
		if !s.handle(ctx, frame) {
			return fmt.Errorf("the server began with %T instead of Start", frame.GetKind())
		}
		if !conn.more() {
			s.run(ctx)
		}
	}
}

// handle starts what the frame asks for. The server has at most one poll of a context
// under way, and beside it one other request or several calls, whose order a lane keeps.
func (s *side) handle(ctx context.Context, frame *pb.ServerFrame) bool {
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_Start:
		s.answer(frame, s.start(kind.Start))
		return true
	case *pb.ServerFrame_Ping:
		result := &pb.Result{Overdue: s.polls.overdue(time.Duration(kind.Ping.GetOverdueMs()) * time.Millisecond)}
		if counting, ok := s.mod.(interface{ HeapBytes() uint64 }); ok {
			result.HeapBytes = counting.HeapBytes()
		}
		s.answer(frame, result)
		return true
	}
	if s.mod == nil {
		return false
	}
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_EndPoll:
		s.polls.end(kind.EndPoll.GetContext())
		s.answer(frame, &pb.Result{})
		return true
	case *pb.ServerFrame_Poll: // begun before the next frame, which may end it
		poll := s.polls.begin(ctx, frame.GetId(), kind.Poll)
		s.calls.Go(func() {
			result := s.perform(poll.ctx, frame)
			s.polls.done(kind.Poll, poll)
			s.answer(frame, result)
		})
		return true
	case *pb.ServerFrame_Call:
		if l := s.lane(kind.Call.GetContext()); l != nil {
			s.runs.add(l, frame)
			return true
		}
	}
	s.calls.Go(func() { s.answer(frame, s.perform(ctx, frame)) })
	return true
}

func (s *side) answer(frame *pb.ServerFrame, result *pb.Result) {
	err := s.send(frame.GetId(), result)
	if errors.Is(err, ErrFrame) { // too large: the server must not wait for ever
		err = s.send(frame.GetId(), &pb.Result{Code: CodeNotOK, Error: "answer not sent: " + err.Error()})
	}
	_ = err // a broken connection ends Serve
}

func (s *side) send(id uint64, result *pb.Result) error {
	return s.conn.Send(&pb.ModuleFrame{Id: id, Kind: &pb.ModuleFrame_Result{Result: result}})
}

func (s *side) start(start *pb.Start) *pb.Result {
	if s.mod != nil {
		return failed(errors.New("started twice"))
	}
	mod, err := s.load(start.GetModuleNumber())
	if err != nil {
		return failed(err)
	}
	result := &pb.Result{ModuleNumber: mod.Number(), HoldsPolls: true, CallsInOrder: true}
	for deviceType := range uint32(prefetched) {
		if mod.Supports(deviceType) {
			result.SupportedTypes = append(result.SupportedTypes, deviceType)
		}
	}
	s.mod = mod
	return result
}

// perform makes one call. A panic of the module is an error of that call, as it is
// for modules inside the server.
func (s *side) perform(ctx context.Context, frame *pb.ServerFrame) (result *pb.Result) {
	defer func() {
		if p := recover(); p != nil {
			result = failed(fmt.Errorf("the module panicked: %v", p))
		}
	}()
	switch kind := frame.GetKind().(type) {
	case *pb.ServerFrame_Call:
		return failed(s.call(ctx, kind.Call))
	case *pb.ServerFrame_Poll:
		return s.poll(ctx, frame.GetId(), kind.Poll)
	case *pb.ServerFrame_Open:
		return failed(s.open(ctx, kind.Open))
	case *pb.ServerFrame_Close:
		return failed(s.close(ctx, kind.Close))
	case *pb.ServerFrame_Supports:
		if s.mod.Supports(kind.Supports.GetType()) {
			return &pb.Result{}
		}
		return &pb.Result{Code: CodeNotOK}
	default:
		return failed(errors.New("unknown frame; the server is newer than this module"))
	}
}

// text makes a protobuf string of any text.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// failed turns an error into a Result; nil becomes OK.
func failed(err error) *pb.Result {
	if err == nil {
		return &pb.Result{}
	}
	if coded, ok := errors.AsType[*Error](err); ok {
		return &pb.Result{Code: coded.Code, Error: text(coded.Text)}
	}
	return &pb.Result{Code: CodeNotOK, Error: text(err.Error())}
}

func (s *side) open(ctx context.Context, open *pb.Open) error {
	s.mu.Lock()
	_, exists := s.contexts[open.GetContext()]
	s.mu.Unlock()
	if exists {
		return fmt.Errorf("context %d is open already", open.GetContext())
	}
	c, err := s.mod.Open(ctx, open)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.contexts[open.GetContext()] = &lane{context: c}
	s.mu.Unlock()
	return nil
}

// lane returns nil when there is no such context.
func (s *side) lane(id uint32) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contexts[id]
}

func (s *side) context(id uint32) (Context, error) {
	if l := s.lane(id); l != nil {
		return l.context, nil
	}
	return nil, &Error{Code: CodeContextIncorrect, Text: fmt.Sprintf("there is no context %d", id)}
}

func (s *side) call(ctx context.Context, call *pb.Call) error {
	c, err := s.context(call.GetContext())
	if err != nil {
		return err
	}
	// The server may not know yet which types are served: it never waits for the
	// answer on a car's path.
	if call.GetFunction() == pb.Call_DEVICE_CONNECTED && !s.mod.Supports(call.GetDevice().GetType()) {
		return &Error{Code: CodeNotOK}
	}
	return c.Call(ctx, call)
}

func (s *side) poll(ctx context.Context, id uint64, poll *pb.Poll) *pb.Result {
	c, err := s.context(poll.GetContext())
	if err != nil {
		return failed(err)
	}
	commands := &Commands{conn: s.conn, id: id}
	result := failed(hold(ctx, c, poll, commands))
	result.Commands = commands.list
	result.UnusableCommands, result.UnusableReason = commands.dropped, commands.reason
	return result
}

func (s *side) close(ctx context.Context, cl *pb.Close) error {
	c, err := s.context(cl.GetContext())
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.contexts, cl.GetContext())
	s.mu.Unlock()
	return c.Close(ctx)
}
