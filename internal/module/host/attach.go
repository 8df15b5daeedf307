package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"external-server/internal/module"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// attach makes the context in process c and tells it of the connected devices.
// It returns errDied when the process ended, ErrClosed when the context is being
// closed.
func (i *instance) attach(ctx context.Context, c *child, first bool) error {
	if err := i.gate.Enter(ctx, module.Opening, "init"); err != nil {
		return err
	}
	defer i.gate.Leave(module.Opening)
	i.mu.Lock()
	opened := i.opened == c
	i.mu.Unlock()
	if !opened {
		p := &pending{op: "init", car: i.spec.Car.Car, limit: i.m.opts.CallTimeout}
		if err := c.post(&pb.ServerFrame{Kind: &pb.ServerFrame_Open{Open: i.openFrame()}}, p); err != nil {
			return err
		}
		result, err := c.await(ctx, p)
		if err != nil {
			if first && !errors.Is(err, errDied) {
				i.destroyWhenMade(c, p)
			}
			return err
		}
		if result.GetCode() != module.CodeOK {
			return initError(result)
		}
		i.mu.Lock()
		i.opened = c
		i.mu.Unlock()
	}
	if !first {
		if err := i.announce(ctx, c); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.at = c
	close(i.changed)
	i.changed = make(chan struct{})
	return nil
}

// destroyWhenMade waits for an init whose caller has given up and destroys its context.
func (i *instance) destroyWhenMade(c *child, open *pending) {
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	if i.m.closed {
		return
	}
	i.m.work.Go(func() {
		if result, err := c.await(i.m.stopped, open); err != nil || result.GetCode() != module.CodeOK {
			return
		}
		if _, err := i.requestDestroy(c); err == nil {
			i.log.Info("context was made after its caller had stopped waiting for it, and is destroyed again")
		}
	})
}

// requestDestroy asks the process to destroy the context.
func (i *instance) requestDestroy(c *child) (*pb.Result, error) {
	return c.request(i.m.stopped, &pb.ServerFrame{Kind: &pb.ServerFrame_Close{Close: &pb.Close{Context: i.id}}},
		&pending{op: "destroy", car: i.spec.Car.Car, limit: i.m.opts.CallTimeout})
}

func (i *instance) openFrame() *pb.Open {
	open := &pb.Open{
		Context:       i.id,
		Company:       i.spec.Car.Company,
		Car:           i.spec.Car.Car,
		PollTimeoutMs: milliseconds(i.spec.PollTimeout),
	}
	for _, pair := range i.spec.Config {
		open.Config = append(open.Config, &pb.Pair{Key: pair.Key, Value: pair.Value})
	}
	return open
}

func initError(result *pb.Result) error {
	if text := errorText(result); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("init failed with code %d; check the module's \"config\" and what the module printed", result.GetCode())
}

// announce tells the new context of the devices in the order in which they came.
// A module that refuses one now keeps getting its statuses, as it would have
// without the restart.
func (i *instance) announce(ctx context.Context, c *child) error {
	i.mu.Lock()
	devices := slices.Clone(i.devices)
	i.mu.Unlock()
	for _, device := range devices {
		result, err := c.request(ctx, &pb.ServerFrame{Kind: &pb.ServerFrame_Call{Call: &pb.Call{
			Context: i.id, Function: pb.Call_DEVICE_CONNECTED, Device: toDevice(device), Redelivered: true}}},
			&pending{op: "device_connected", car: i.spec.Car.Car, limit: i.m.opts.CallTimeout})
		if err != nil {
			return err
		}
		if err := callError("device_connected", result); err != nil {
			i.log.Error("module refused a connected device after its restart", "device", device.String(), "error", err)
		}
	}
	return nil
}

// reattach is attach that tries again as long as the process lives and the car is
// not closed: the module may need something that is not back yet.
func (i *instance) reattach(c *child) error {
	pause := i.m.opts.BackoffMin
	for {
		select {
		case i.m.slots <- struct{}{}:
		case <-i.gate.Shutting():
			return nil
		case <-c.dead:
			return errDied
		}
		err := i.attach(i.m.stopped, c, false)
		<-i.m.slots
		switch {
		case errors.Is(err, ErrClosed):
			return nil
		case err == nil, errors.Is(err, errDied), i.m.stopped.Err() != nil:
			return err
		}
		i.log.Error("context cannot be made in the new module process, trying again", "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-c.dead:
		case <-i.gate.Shutting():
		}
		timer.Stop()
		pause = min(2*pause, i.m.opts.BackoffMax)
	}
}

func (i *instance) attachedTo(c *child) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.at == c
}

// Close destroys the context. When a call or wait_for_command is still under way
// at the end of ctx, it returns module.ErrStuck and the context is destroyed as
// soon as they come back. A second Close returns ErrClosed.
func (i *instance) Close(ctx context.Context) error {
	if !i.gate.Shut() {
		return fmt.Errorf("destroy: %w", ErrClosed)
	}
	i.m.mu.Lock()
	delete(i.m.instances, i.id)
	closed := i.m.closed
	if !closed { // counted here, so that Close of the module waits for it
		i.m.work.Add(1)
	}
	i.m.mu.Unlock()
	if closed {
		return nil
	}
	finished := make(chan error, 1)
	var done, late bool // guarded by i.m.mu
	go func() {
		defer i.m.work.Done()
		finished <- i.destroy()
		i.m.mu.Lock()
		defer i.m.mu.Unlock()
		if done = true; late {
			i.m.late--
		}
	}()
	select {
	case err := <-finished:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case err := <-finished:
		return err
	case <-grace.C:
		i.m.mu.Lock()
		defer i.m.mu.Unlock()
		if !done {
			late = true
			i.m.late++
		}
		return fmt.Errorf("%s: %w", cmp.Or(i.gate.Busy(), "destroy"), module.ErrStuck)
	}
}

// destroy waits for the calls under way and ends the context where it exists. It
// ends with the process at the latest.
func (i *instance) destroy() error {
	i.gate.Drain(nil, module.Opening) // attach ends with its process
	i.mu.Lock()
	c, holding := i.opened, i.holding
	i.mu.Unlock()
	if holding && !c.isDead() {
		i.endPoll(c)
	}
	if c == nil || c.isDead() || i.gate.Drain(c.dead, module.Calling, module.Waiting) != "" {
		return nil
	}
	if left := i.takeLeftover(); len(left) > 0 {
		i.log.Warn("commands came after the last request for them and are lost", "commands", len(left))
	}
	result, err := i.requestDestroy(c)
	if err != nil {
		return nil // the process ended, and the context with it
	}
	return callError("destroy", result)
}
