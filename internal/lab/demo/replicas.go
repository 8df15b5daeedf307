package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"external-server/internal/lab/freeport"
)

const (
	// maxReplicas bounds the servers of a demo.
	maxReplicas = 5
	// killAfter is when one of several servers is killed, drainAfter when another one is
	// stopped in order. A shorter demo does so after a quarter and in its middle.
	killAfter  = 20 * time.Second
	drainAfter = 45 * time.Second
	// replaceAfter is how long the killed one stays away.
	replaceAfter = 5 * time.Second
)

// replica is one of several servers.
type replica struct {
	name   string
	config string
	admin  string
	part   *part // nil: there is none
}

// replicas are several servers that share the cars.
type replicas struct {
	opts     *Options
	narrator *narrator
	failed   context.CancelCauseFunc // ends the demo when something ends by itself

	mu    sync.Mutex
	all   []*replica
	other []*part // broker, etcd, the HTTP API: in the order of their start
}

// runReplicas is run with several servers.
func runReplicas(ctx context.Context, opts *Options, dir string) (err error) {
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	n := newNarrator(opts.Out)
	at, r, err := startReplicas(ctx, dir, opts, n, failed)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	n.welcomeReplicas(opts, at, r.all)
	if opts.Open != nil && ctx.Err() == nil {
		opts.Open("http://" + at.admin + "/")
	}
	running := ctx
	if opts.Duration > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeout(ctx, opts.Duration)
		defer cancel()
	}
	var story sync.WaitGroup
	story.Go(func() {
		if err := r.tell(running); err != nil && running.Err() == nil {
			failed(err)
		}
	})
	f := &fleetOfCars{narrator: n, at: at, server: &ward{}, pace: opts.Pace, module: opts.Module, names: carNames(opts.Cars)}
	err = f.run(running, func() {
		story.Wait()
		n.ends("all stop: every car is told, every module sees its devices leave")
		_ = r.stopServers() // its error is returned below
	})
	n.summary()
	return errors.Join(err, unlessInterrupted(ctx, context.Cause(ctx)))
}

// startReplicas starts everything, again when another program has taken a port meanwhile.
func startReplicas(ctx context.Context, dir string, opts *Options, n *narrator, failed context.CancelCauseFunc) (at addresses, r *replicas, err error) {
	for attempt := 1; ; attempt++ {
		r = &replicas{opts: opts, narrator: n, failed: failed}
		place := filepath.Join(dir, strconv.Itoa(attempt))
		if err = os.Mkdir(place, 0o700); err != nil {
			return at, nil, err
		}
		if at, err = r.start(ctx, place); err == nil {
			return at, r, nil
		}
		last := !errors.Is(err, errEnded) || r.opts.Port > 0 || attempt == attempts
		if last && ctx.Err() == nil {
			r.pass()
		}
		_ = r.stop() // what has failed is known
		if last {
			return at, nil, err
		}
	}
}

// pass shows what the processes have said.
func (r *replicas) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.other {
		p.said.pass()
	}
	for _, one := range r.all {
		if one.part != nil {
			one.part.said.pass()
		}
	}
}

// start starts broker, etcd, the HTTP API and the servers, and waits until all cars have an
// owner.
func (r *replicas) start(ctx context.Context, dir string) (at addresses, err error) {
	if at, err = chooseAddresses(r.opts.Port); err != nil {
		return at, err
	}
	free, err := freeport.Addresses(2 + 2*r.opts.Replicas)
	if err != nil {
		return at, err
	}
	client, peers := free[0], free[1]
	for _, p := range []struct {
		name string
		args []string
	}{
		{"broker", []string{"--listen", at.broker}},
		{"etcd", []string{"--program", r.opts.Etcd, "--data", filepath.Join(dir, "etcd"), "--client", client, "--peer", peers}},
	} {
		if err := r.along(ctx, p.name, p.args...); err != nil {
			return at, err
		}
	}
	api, err := r.office(dir, at)
	if err != nil {
		return at, err
	}
	if err := r.along(ctx, "server", "--config", api); err != nil {
		return at, fmt.Errorf("the HTTP API: %w", err)
	}
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails
	for i := range r.opts.Replicas {
		one := &replica{name: fmt.Sprintf("server_%d", i+1), admin: free[2+2*i]}
		if i == 0 {
			one.admin = at.admin
		}
		file, err := settings(dir, one.name, r.opts, at)
		if err != nil {
			return at, err
		}
		delete(file, "http_api")
		file["admin"] = map[string]any{"listen": one.admin}
		file["cluster"] = map[string]any{
			"etcd": []string{"http://" + client}, "replica": one.name, "peer_listen": free[3+2*i], "peer_token": fmt.Sprintf("%x", token),
		}
		for _, m := range file["common_modules"].(map[string]any) {
			if entry := m.(map[string]any); entry["builtin"] != nil {
				entry["config"] = map[string]any{"api_url": "http://" + at.api + "/v2/protocol"}
			}
		}
		if one.config, err = write(dir, one.name, file); err != nil {
			return at, err
		}
		r.all = append(r.all, one)
	}
	var starting sync.WaitGroup
	errs := make([]error, len(r.all))
	for i, one := range r.all {
		starting.Go(func() { errs[i] = r.begin(ctx, one) })
	}
	starting.Wait()
	return at, errors.Join(errs...)
}

// along starts a process that is no replica and waits until it has its ports.
func (r *replicas) along(ctx context.Context, name string, args ...string) error {
	p, err := startPart(r.opts, name, args...)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.other = append(r.other, p)
	r.mu.Unlock()
	if err := p.wait(ctx, func(context.Context) bool { return true }); err != nil {
		return err
	}
	go func() { // ends with the process, which stop ends
		<-p.done
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.other != nil {
			r.failed(p.ended())
		}
	}()
	return nil
}

// office writes the configuration of a server that has no cars to speak of, but the HTTP API:
// the store of one that all replicas share would be PostgreSQL.
func (r *replicas) office(dir string, at addresses) (path string, err error) {
	file, err := settings(dir, "office", r.opts, at)
	if err != nil {
		return "", err
	}
	delete(file, "admin")
	file["common_modules"] = map[string]any{"1": map[string]any{"builtin": "mission"}}
	file["cars"] = map[string]any{"none": map[string]any{}}
	delete(file, "state_directory")
	return write(dir, "office", file)
}

// begin starts a replica and waits until it is ready: then all shards have an owner.
func (r *replicas) begin(ctx context.Context, one *replica) error {
	p, err := startPart(r.opts, "server", "--config", one.config)
	if err != nil {
		return err
	}
	r.mu.Lock()
	one.part = p
	r.mu.Unlock()
	if err := p.wait(ctx, serves(one.admin)); err != nil {
		return fmt.Errorf("%s: %w", one.name, err)
	}
	go func() { // ends with the process, which stop ends
		<-p.done
		r.mu.Lock()
		defer r.mu.Unlock()
		if one.part == p {
			r.failed(fmt.Errorf("%s: %w", one.name, p.ended()))
		}
	}()
	return nil
}

// take returns the process of a replica, whose end is nothing unexpected any more.
func (r *replicas) take(one *replica) *part {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := one.part
	one.part = nil
	return p
}

// tell kills one server and stops another while the cars drive, and says what the cars have
// noticed.
func (r *replicas) tell(ctx context.Context) error {
	kill, drain := killAfter, drainAfter
	if d := r.opts.Duration; d > 0 {
		kill, drain = min(kill, d/4), min(drain, d/2)
	}
	n, begun := r.narrator, time.Now()
	last, first := r.all[len(r.all)-1], r.all[0]
	if !pause(ctx, kill) {
		return nil
	}
	n.say("", "%s is killed (kill -9) while the cars drive", last.name)
	n.beginRestart()
	if p := r.take(last); p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		_ = p.input.Close()
	}
	n.noticed(ctx)
	if !pause(ctx, replaceAfter) {
		return nil
	}
	if err := r.begin(ctx, last); err != nil {
		r.pass()
		return err
	}
	n.say("", "%s is started again; cars come back to it one shard at a time", last.name)
	if !pause(ctx, drain-time.Since(begun)) {
		return nil
	}
	n.say("", "%s is stopped in order, as for an upgrade: it hands its cars over to the others", first.name)
	n.beginRestart()
	if p := r.take(first); p != nil {
		if err := p.stop(syscall.SIGTERM); err != nil {
			return err
		}
	}
	n.noticed(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err := r.begin(ctx, first); err != nil {
		r.pass()
		return err
	}
	n.say("", "%s is there again", first.name)
	return nil
}

// stopServers ends the replicas for good: the cars are told.
func (r *replicas) stopServers() error {
	var stopping sync.WaitGroup
	errs := make([]error, len(r.all))
	for i, one := range r.all {
		if p := r.take(one); p != nil {
			stopping.Go(func() { errs[i] = p.stop(r.opts.FinalStop) })
		}
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// stop ends everything.
func (r *replicas) stop() error {
	err := r.stopServers()
	r.mu.Lock()
	other := r.other
	r.other = nil
	r.mu.Unlock()
	for i := len(other) - 1; i >= 0; i-- {
		err = errors.Join(err, other[i].stop(nil))
	}
	return err
}

// write writes a configuration file.
func write(dir, name string, file map[string]any) (path string, err error) {
	content, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, name+".json")
	return path, os.WriteFile(path, content, 0o600)
}

// checkReplicas tells what is wrong with the number of servers.
func (o *Options) checkReplicas() error {
	switch {
	case o.Replicas < 1 || o.Replicas > maxReplicas:
		return errors.New(strconv.Itoa(o.Replicas) + " replicas: expected 1 to " + strconv.Itoa(maxReplicas))
	case o.Replicas > 1 && o.Etcd == "":
		return errors.New("several replicas need etcd, which was not found: build it with 'make etcd', install it, or name its program in the variable ETCD_SERVER")
	}
	return nil
}

// welcomeReplicas says what runs.
func (n *narrator) welcomeReplicas(opts *Options, at addresses, all []*replica) {
	said := ""
	for _, note := range at.notes {
		said += note + "\n"
	}
	for _, one := range all {
		said += fmt.Sprintf("  %-9s its dashboard, with the cars of all: http://%s/\n", one.name, one.admin)
	}
	n.print(fmt.Sprintf(`
%d servers now share %d simulated cars. They find each other through etcd and talk to the cars through one MQTT broker
(%v). Another process has the HTTP API (%v). One server will be killed, and another one stopped,
while the cars drive: they go on with their sessions.

%s
`, len(all), opts.Cars, at.broker, at.api, said))
}
