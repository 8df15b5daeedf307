package check

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/host"
)

// waitSlack is how far a wait may exceed its timeout: the machine may be busy.
const waitSlack = 500 * time.Millisecond

// maxCommands is how many commands of one car wait in the server, the newest ones.
const maxCommands = 1000

// provoke makes the module hand out commands, if that is known how; a module may
// also have some of its own accord.
func provoke(ctx context.Context, s *subject, car module.Instance, d fleet.Device) error {
	statuses := []string{s.c.target.Status}
	for _, e := range s.c.target.Conversation {
		statuses = append(statuses, e.Status)
	}
	if len(s.c.target.Conversation) > 0 {
		statuses = statuses[1:]
	}
	if err := documented(s.call(ctx, func(ctx context.Context) error { return car.DeviceConnected(ctx, d) })); err != nil {
		return err
	}
	for _, status := range statuses {
		err := documented(s.call(ctx, func(ctx context.Context) error { return car.ForwardStatus(ctx, d, []byte(status)) }))
		if err != nil {
			return err
		}
	}
	return nil
}

func checkOutput(ctx context.Context, c *checker) error {
	commands := 0
	err := oneCar(ctx, c, true, 100*time.Millisecond, func(s *subject, car module.Instance) error {
		if _, ok := s.Module.(*host.Module); !ok {
			return skip("the module runs inside the checking process")
		}
		for range 5 {
			if err := provoke(ctx, s, car, s.device("role")); err != nil {
				return err
			}
			got, err := fetch(ctx, s, car)
			if err != nil && documented(err) != nil {
				return err
			}
			commands += len(got)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return measured(fmt.Sprintf("%d commands were handed out", commands))
}

func checkWait(ctx context.Context, c *checker) error {
	const poll = 300 * time.Millisecond
	var longest time.Duration
	// A busy machine may be late once or twice, a module may have something else
	// to do first; what it does all the time is the finding.
	late, early := 0, 0
	err := oneCar(ctx, c, false, poll, func(s *subject, car module.Instance) error {
		for range 4 {
			began := time.Now()
			commands, err := fetch(ctx, s, car)
			took := time.Since(began)
			longest = max(longest, took)
			switch {
			case err != nil:
				return fmt.Errorf("without any device: %w", err)
			case took > poll+waitSlack && late < 2:
				late++
			case took > poll+waitSlack:
				return fmt.Errorf("took %v with a timeout of %v; the server's stop waits for it", took.Round(time.Millisecond), poll)
			case took < poll/2 && len(commands) == 0 && early < 2:
				early++
			case took < poll/2 && len(commands) == 0:
				return fmt.Errorf("came back after %v without a command, the timeout is %v; the server would poll without pause",
					took.Round(time.Millisecond), poll)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return measured(fmt.Sprintf("at most %v with a timeout of %v", longest.Round(time.Millisecond), poll))
}

func checkIndependence(ctx context.Context, c *checker) error {
	const poll = 2 * time.Second
	return c.with(ctx, false, func(s *subject) error {
		waiting, err := s.car(ctx, "waiting", poll)
		if err != nil {
			return err
		}
		other, err := s.car(ctx, "other", poll)
		if err != nil {
			return err
		}
		var took time.Duration
		for attempts := 0; ; attempts++ {
			polled := make(chan error, 1)
			go func() {
				_, err := fetch(ctx, s, waiting)
				polled <- err
			}()
			began := time.Now()
			// Not at once, or all calls may be over before wait_for_command has begun.
			for err == nil && time.Since(began) < poll/8 {
				err = session(ctx, s, other, "other", []byte(c.target.Status))
			}
			err = errors.Join(err, session(ctx, s, waiting, "own", []byte(c.target.Status)))
			took = time.Since(began)
			<-polled
			if err != nil || took <= poll/2 || attempts == 2 { // a busy machine may be late once or twice
				break
			}
		}
		err = errors.Join(err, closeCar(ctx, s, waiting), closeCar(ctx, s, other))
		if err == nil && took > poll/2 {
			err = fmt.Errorf("calls took %v while wait_for_command of one car was waiting", took.Round(time.Millisecond))
		}
		return err
	})
}

func checkCommands(ctx context.Context, c *checker) error {
	var got []fleet.Command
	err := oneCar(ctx, c, true, 200*time.Millisecond, func(s *subject, car module.Instance) error {
		d := s.device("role")
		if err := provoke(ctx, s, car, d); err != nil {
			return err
		}
		for range 5 {
			commands, err := fetch(ctx, s, car)
			if err != nil {
				return err
			}
			if len(commands) > maxCommands {
				return fmt.Errorf("%d commands came at once, and the server keeps %d; does pop_command ever return 0?",
					len(commands), maxCommands)
			}
			got = append(got, commands...)
		}
		for _, command := range got {
			if command.Device.ID() != d.ID() {
				return fmt.Errorf("a command is for device %s, only %s is connected", command.Device, d)
			}
		}
		for i, e := range c.target.Conversation {
			switch {
			case len(got) <= i:
				return fmt.Errorf("%d commands came, expected %d", len(got), len(c.target.Conversation))
			case string(got[i].Data) != e.Command:
				return fmt.Errorf("command %d is %.100q, expected %.100q", i+1, got[i].Data, e.Command)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return measured(fmt.Sprintf("%d commands", len(got)))
}

func checkUnknown(ctx context.Context, c *checker) error {
	return oneCar(ctx, c, false, time.Second, func(s *subject, car module.Instance) error {
		stranger := s.device("stranger")
		err := s.call(ctx, func(ctx context.Context) error {
			return car.DeviceDisconnected(ctx, fleet.DisconnectAnnounced, stranger)
		})
		if err == nil {
			return errors.New("device_disconnected returned OK for a device that never connected")
		}
		if err := documented(err); err != nil {
			return err
		}
		return documented(s.call(ctx, func(ctx context.Context) error {
			return car.ForwardStatus(ctx, stranger, []byte(c.target.Status))
		}))
	})
}

func checkConcurrency(ctx context.Context, c *checker) error {
	const cars, rounds = 8, 30
	return c.with(ctx, false, func(s *subject) error {
		var group sync.WaitGroup
		errs := make([]error, cars)
		for n := range cars {
			group.Go(func() {
				errs[n] = func() error {
					role := fmt.Sprintf("role_%d", n)
					car, err := s.car(ctx, fmt.Sprintf("car_%d", n), 20*time.Millisecond)
					if err != nil {
						return err
					}
					for range rounds {
						if err := provoke(ctx, s, car, s.device(role)); err != nil {
							return err
						}
						commands, err := fetch(ctx, s, car)
						if err != nil {
							return err
						}
						for _, command := range commands {
							if command.Device.Role != role {
								return fmt.Errorf("car %d got a command for %s, a device of another car", n, command.Device)
							}
						}
					}
					return closeCar(ctx, s, car)
				}()
			})
		}
		group.Wait()
		if died := s.died(); died != nil {
			return died
		}
		return errors.Join(errs...)
	})
}

func checkCycles(ctx context.Context, c *checker) error {
	// Allocators keep some memory back and Go collects late: growth counts when
	// it comes with every cycle.
	const perCycle, once = 48, 32 << 10 // bytes of the C allocator
	const resident = 16 << 20           // for executables, whose allocator is unknown
	var note string
	err := c.with(ctx, false, func(s *subject) error {
		p, ok := s.Module.(*host.Module)
		if !ok {
			return skip("the module runs inside the checking process")
		}
		cycle := func() error {
			car, err := s.car(ctx, "car", time.Millisecond)
			if err != nil {
				return err
			}
			d := s.device("role")
			if err := documented(s.call(ctx, func(ctx context.Context) error { return car.DeviceConnected(ctx, d) })); err != nil {
				return err
			}
			return closeCar(ctx, s, car) // with the device still connected
		}
		var heap [2]uint64
		var rss [2]int64
		for n := range c.target.Cycles + c.target.Cycles/10 {
			if n == c.target.Cycles/10 {
				heap[0], _ = p.HeapBytes(ctx)
				rss[0] = p.State().RSS
			}
			if err := cycle(); err != nil {
				return fmt.Errorf("cycle %d: %w", n+1, err)
			}
		}
		heap[1], _ = p.HeapBytes(ctx)
		rss[1] = p.State().RSS
		grown := int64(heap[1]) - int64(heap[0])
		note = growth(c.target.Cycles, "the library's memory", grown, "bytes")
		if heap[1] == 0 {
			note = growth(c.target.Cycles, "the process's memory", (rss[1]-rss[0])>>10, "KiB")
		}
		if grown > int64(c.target.Cycles*perCycle+once) || heap[1] == 0 && rss[1]-rss[0] > resident {
			return errors.New(note)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return measured(note)
}

// growth says how much memory grew; memory that was given back is no growth.
func growth(cycles int, memory string, grown int64, unit string) string {
	if grown <= 0 {
		return fmt.Sprintf("%d cycles, %s did not grow", cycles, memory)
	}
	return fmt.Sprintf("%d cycles, %s grew by %d %s", cycles, memory, grown, unit)
}

func checkDestroy(ctx context.Context, c *checker) error {
	return oneCar(ctx, c, true, 20*time.Millisecond, func(s *subject, car module.Instance) error {
		_, err := fetch(ctx, s, car)
		return err
	})
}
