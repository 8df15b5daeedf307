package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/module/host"
)

// rules are all checks. Later ones rely on what earlier ones found out.
var rules = []rule{
	{"MT-1", "the module loads, has all functions and reports the same number every time", "MOD-10", checkLoad, false},
	{"MT-2", "at least one device type of 0 to 255 is supported, the same every time", "VOC-9", checkTypes, false},
	{"MT-3", "init accepts the given configuration", "MOD-8", checkInit, false},
	{"MT-4", "init answers unusable configurations with a context or NULL", "MOD-8, MOD-10", checkBadConfig, false},
	{"MT-5", "device_connected accepts a supported device, also twice", "MOD-11", checkConnect, true},
	{"MT-6", "calls return documented codes", "6.1", checkCodes, true},
	{"MT-7", "empty, binary and huge payloads are survived", "MOD-3", checkPayloads, true},
	{"MT-8", "input is read within its length and during the call only", "MOD-1, MOD-3", checkInput, true},
	{"MT-9", "output is freed by deallocate, which sets the size to 0", "MOD-2", checkOutput, true},
	{"MT-10", "wait_for_command waits, and not longer than its timeout", "MOD-15", checkWait, true},
	{"MT-11", "wait_for_command delays neither other calls of its car nor other cars", "MOD-5", checkIndependence, true},
	{"MT-12", "pop_command hands out commands for real devices, in order, and ends", "MOD-14, DEF-36", checkCommands, true},
	{"MT-13", "device_disconnected of an unknown device is an error, and nothing worse", "MOD-13", checkUnknown, true},
	{"MT-14", "contexts used at the same time do not mix", "MOD-5", checkConcurrency, true},
	{"MT-15", "contexts can be made and destroyed for ever, without growing memory", "MOD-4", checkCycles, true},
	{"MT-16", "destroy returns OK and sets the context to NULL", "6.2", checkDestroy, true},
}

// Rules returns id, text and origin of every rule, in order.
func Rules() [][3]string {
	var out [][3]string
	for _, r := range rules {
		out = append(out, [3]string{r.id, r.text, r.spec})
	}
	return out
}

func checkLoad(ctx context.Context, c *checker) error {
	for range 2 {
		err := c.with(ctx, false, func(s *subject) error {
			if c.number != 0 && s.Number() != c.number {
				return fmt.Errorf("reported number %d and then %d", c.number, s.Number())
			}
			c.number = s.Number()
			return nil
		})
		if err != nil {
			return err
		}
	}
	if want := c.target.Number; want != 0 && want != c.number {
		return wrongNumber{c.number, want}
	}
	return measured(fmt.Sprintf("number %d", c.number))
}

// wrongNumber is the error of a module that can be opened but is another one.
type wrongNumber struct{ reported, expected int32 }

func (w wrongNumber) Error() string {
	return fmt.Sprintf("reports number %d, expected %d (\"number\" of the file of --config)", w.reported, w.expected)
}

func checkTypes(ctx context.Context, c *checker) error {
	for round := range 2 {
		var types []uint32
		err := c.with(ctx, false, func(s *subject) error {
			for deviceType := range uint32(256) {
				if s.Supports(deviceType) {
					types = append(types, deviceType)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if round > 0 && fmt.Sprint(types) != fmt.Sprint(c.types) {
			return fmt.Errorf("supported types were %v and then %v", c.types, types)
		}
		c.types = types
	}
	switch {
	case len(c.types) == 0:
		return errors.New("no type of 0 to 255 is supported")
	case len(c.types) > 8:
		c.deviceType = c.types[0]
		return measured(fmt.Sprintf("%d types, the first is %d", len(c.types), c.types[0]))
	}
	c.deviceType = c.types[0]
	return measured(fmt.Sprintf("types %v", c.types))
}

// oneCar is a check with one context, closed at the end.
func oneCar(ctx context.Context, c *checker, strict bool, poll time.Duration, check func(s *subject, car module.Instance) error) error {
	return c.with(ctx, strict, func(s *subject) error {
		car, err := s.car(ctx, "car", poll)
		if err != nil {
			return err
		}
		err = check(s, car)
		return errors.Join(err, closeCar(ctx, s, car))
	})
}

func closeCar(ctx context.Context, s *subject, car module.Instance) error {
	if s.died() != nil {
		return nil // reported already
	}
	return s.call(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return car.Close(ctx)
	})
}

func checkInit(ctx context.Context, c *checker) error {
	return c.with(ctx, false, func(s *subject) error {
		car, err := s.car(ctx, "car", time.Second)
		c.noContext = err != nil
		switch {
		case err != nil && len(c.target.Config) == 0:
			return fmt.Errorf("%w; if it needs a configuration, give it with --config (Target.Config)", err)
		case err != nil:
			return err
		}
		return closeCar(ctx, s, car)
	})
}

func checkBadConfig(ctx context.Context, c *checker) error {
	long := strings.Repeat("x", 1<<20)
	tests := map[string][]module.Pair{
		"an unknown key":       {{Key: "no_such_key", Value: "1"}},
		"an empty key":         {{Key: "", Value: ""}},
		"a value of 1 MiB":     {{Key: "check_value", Value: long}},
		"a key of 1 MiB":       {{Key: long, Value: "1"}},
		"bytes that are no C":  {{Key: "check\x00key", Value: "a\x00b\nč"}},
		"a thousand pairs":     many(1000),
		"broken api_url":       {{Key: "api_url", Value: "not an address"}},
		"values of all config": spoiled(c.target.Config, long),
	}
	return c.with(ctx, false, func(s *subject) error {
		for name, pairs := range tests {
			car, err := s.car(ctx, "car", time.Second, pairs...)
			if died := s.died(); died != nil {
				return fmt.Errorf("with %s: %w", name, died)
			}
			if errors.Is(err, module.ErrStuck) {
				return fmt.Errorf("with %s: %w", name, err)
			}
			if err != nil {
				continue // refused, as it may
			}
			if err := closeCar(ctx, s, car); err != nil {
				return fmt.Errorf("with %s: %w", name, err)
			}
		}
		return nil
	})
}

func many(n int) []module.Pair {
	pairs := make([]module.Pair, n)
	for i := range pairs {
		pairs[i] = module.Pair{Key: fmt.Sprintf("key_%d", i), Value: "value"}
	}
	return pairs
}

func spoiled(config []module.Pair, value string) []module.Pair {
	var pairs []module.Pair
	for _, p := range config {
		pairs = append(pairs, module.Pair{Key: p.Key, Value: value})
	}
	return pairs
}

func checkConnect(ctx context.Context, c *checker) error {
	if len(c.types) == 0 {
		return skip("no device type is known")
	}
	return oneCar(ctx, c, false, time.Second, func(s *subject, car module.Instance) error {
		d := s.device("role")
		for n := range 2 {
			err := s.call(ctx, func(ctx context.Context) error { return car.DeviceConnected(ctx, d) })
			if err != nil && n == 0 || s.died() != nil {
				return err
			}
		}
		return nil
	})
}

// documented returns nil for success and documented codes, else the error.
func documented(err error) error {
	var code *module.CallError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &code):
		return err
	case code.Code < 0 && code.Code > -10, code.Code == module.CodeContextIncorrect, code.Code == module.CodeTimeoutOccurred:
		return nil
	}
	return fmt.Errorf("%w, which is not a documented code", err)
}

// session makes every call once, with a status.
func session(ctx context.Context, s *subject, car module.Instance, role string, data []byte) error {
	d := s.device(role)
	calls := []func(context.Context) error{
		func(ctx context.Context) error { return car.DeviceConnected(ctx, d) },
		func(ctx context.Context) error { return car.ForwardStatus(ctx, d, data) },
		func(ctx context.Context) error { return car.ForwardError(ctx, d, data) },
		func(ctx context.Context) error { return car.CommandAck(ctx, fleet.Command{Device: d, Data: data}) },
		func(ctx context.Context) error { return car.DeviceDisconnected(ctx, fleet.DisconnectTimeout, d) },
	}
	for _, call := range calls {
		if err := documented(s.call(ctx, call)); err != nil {
			return err
		}
	}
	return nil
}

func checkCodes(ctx context.Context, c *checker) error {
	return oneCar(ctx, c, false, time.Second, func(s *subject, car module.Instance) error {
		return session(ctx, s, car, "role", []byte(c.target.Status))
	})
}

// payloads a module may have to live with.
func payloads() map[string][]byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return map[string][]byte{
		"an empty payload":   {},
		"a binary payload":   all,
		"a payload of NULs":  make([]byte, 100),
		"a payload of 4 MiB": bytes.Repeat([]byte("[1,"), 4<<20/3),
	}
}

func checkPayloads(ctx context.Context, c *checker) error {
	return oneCar(ctx, c, false, time.Second, func(s *subject, car module.Instance) error {
		for name, data := range payloads() {
			if err := session(ctx, s, car, "role", data); err != nil {
				return fmt.Errorf("with %s: %w", name, err)
			}
		}
		long := strings.Repeat("r", 64<<10)
		if err := session(ctx, s, car, long, nil); err != nil {
			return fmt.Errorf("with a role of 64 KiB: %w", err)
		}
		return nil
	})
}

func checkInput(ctx context.Context, c *checker) error {
	return oneCar(ctx, c, true, 50*time.Millisecond, func(s *subject, car module.Instance) error {
		if _, ok := s.Module.(*host.Module); !ok {
			return skip("the module runs inside the checking process")
		}
		d := s.device("role")
		if err := documented(s.call(ctx, func(ctx context.Context) error { return car.DeviceConnected(ctx, d) })); err != nil {
			return err
		}
		// Each length ends at the forbidden page; what is kept from one call is
		// found out by the next or by the poll.
		for _, data := range []string{c.target.Status, "", "1", "{\"a\": 1}", strings.Repeat(" ", 4096)} {
			if err := session(ctx, s, car, "role", []byte(data)); err != nil {
				return err
			}
			if _, err := fetch(ctx, s, car); documented(err) != nil {
				return err
			}
		}
		return nil
	})
}

// fetch is one WaitCommands. Inside the checking process a module may wait longer
// than its timeout, because the server can end that wait; it must be possible.
func fetch(ctx context.Context, s *subject, car module.Instance) ([]fleet.Command, error) {
	inside := false
	if _, isolated := s.Module.(*host.Module); !isolated {
		inside = true
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.poll.Load()))
		defer cancel()
	}
	got := make(chan []fleet.Command, 1)
	err := s.call(ctx, func(ctx context.Context) error {
		commands, err := car.WaitCommands(ctx)
		if inside && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = nil
		}
		got <- commands
		return err
	})
	select {
	case commands := <-got:
		return commands, err
	default: // the module is gone
		return nil, err
	}
}
