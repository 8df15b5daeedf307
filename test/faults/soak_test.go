package faults

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/servertest"
)

var soakFlag = flag.Duration("soak", 0, "run the soak for this `time`; 0: a minute's worth of its parts as a test of the test")

// sample is the size of the server at one moment.
type sample struct {
	at                            time.Duration
	resident                      float64 // MB
	heap                          float64 // MB that lived after the last garbage collection
	descriptors, threads, routine float64
	latency                       float64 // p99 of a status in ms since the last sample
}

// Mixed load with faults for a long time: memory, descriptors, threads and goroutines
// do not grow, latency stays what it was, what was answered is delivered. The binary
// has no race detector, whose bookkeeping grows.
func TestSoak(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	length, faultEvery, sampleEvery := *soakFlag, 20*time.Second, 5*time.Second
	if length == 0 {
		length, faultEvery, sampleEvery = 6*time.Second, time.Second, 200*time.Millisecond
	}
	r.full = *soakFlag > 0
	r.startBroker(true, brokertest.Options{Extra: "log_type none\nset_tcp_nodelay true\n"})
	r.row.Fault = "soak of " + length.String()
	cars := fleetOf("other", r.size(100, 5), spare, fleetOf("car", r.size(100, 5), recorder, nil))
	r.configure(cars)
	admin := brokertest.FreeAddress(t)
	r.config["admin"] = obj{"listen": admin}
	r.config["logging"].(obj)["console"] = obj{"level": "WARNING", "use": true}
	r.opts.Binary = servertest.Plain(t)
	r.startServer()
	r.startCars(cars, r.during(time.Second, 200*time.Millisecond))
	begin := time.Now()
	var samples []sample
	faults := 0
	const fewest = 8 // samples, however long each takes on this machine
	for nextFault, nextSample := faultEvery, time.Duration(0); time.Since(begin) < length || len(samples) < fewest; pause(20 * time.Millisecond) {
		if now := time.Since(begin); now >= nextSample {
			nextSample += sampleEvery
			samples = append(samples, r.sample(admin, now))
		}
		if time.Since(begin) >= nextFault && time.Since(begin) < length-length/10 {
			nextFault += faultEvery
			faults++
			r.anyFault()
		}
	}
	r.recovered(time.Now())
	r.row.Note = fmt.Sprintf("%d faults", faults)
	for _, v := range []struct {
		name  string
		of    func(sample) float64
		slack float64 // growth over the second half that is no trend
	}{
		{"resident memory, MB", func(s sample) float64 { return s.resident }, 8},
		{"live heap, MB", func(s sample) float64 { return s.heap }, 3},
		{"descriptors", func(s sample) float64 { return s.descriptors }, 3},
		{"threads", func(s sample) float64 { return s.threads }, 3},
		{"goroutines", func(s sample) float64 { return s.routine }, 20},
		{"p99 of a status, ms", func(s sample) float64 { return s.latency }, 50},
	} {
		half := samples[len(samples)/2:]
		growth := slope(half, v.of) * (half[len(half)-1].at - half[0].at).Seconds()
		t.Logf("%s: median %.1f in the first half, %.1f in the second, trend over the second half %+.1f",
			v.name, median(samples[:len(samples)/2], v.of), median(half, v.of), growth)
		if *soakFlag > 0 && growth > v.slack {
			t.Errorf("%s grow: %+.1f over the second half", v.name, growth)
		}
	}
	r.finish("")
	t.Log(r.row)
}

// anyFault does one of the things that happen in the life of a server.
func (r *rig) anyFault() {
	switch rand.N(7) {
	case 0:
		r.way.Cut()
	case 1:
		r.broker.Kill()
		r.broker.Restart()
	case 2:
		if pid := r.host(recorder); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	case 3:
		r.touch(r.trigger(spare, "crash"))
	case 4:
		for range 10 {
			r.crew.cars[rand.N(len(r.crew.cars))].Restart()
		}
	case 5:
		r.reload()
	case 6:
		for n := range 200 {
			if err := brokertest.PublishOnce(brokertest.PeerOptions{Address: r.broker.Address()}, company+"/nobody/module_gateway", hostile(n)); err != nil {
				return // the broker is just away
			}
		}
	}
}

func (r *rig) sample(admin string, at time.Duration) sample {
	r.Helper()
	pid := r.server.PID()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		r.Fatal(err)
	}
	s := sample{at: at, resident: float64(residentKB(r, pid)) / 1024, descriptors: float64(len(fds)), threads: float64(status(r, pid, "Threads"))}
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, " ")
		value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		switch {
		case name == "go_goroutines" && err == nil:
			s.routine = value
		case name == "go_memstats_next_gc_bytes" && err == nil:
			s.heap = value / 2 / (1 << 20) // GOGC is 100
		}
	}
	var all []time.Duration
	for _, c := range r.crew.cars {
		c.mu.Lock()
		all = append(all, c.latencies...)
		c.latencies = c.latencies[:0]
		c.mu.Unlock()
	}
	if len(all) > 0 {
		slices.Sort(all)
		s.latency = float64(all[len(all)*99/100]) / float64(time.Millisecond)
	}
	return s
}

func median(samples []sample, of func(sample) float64) float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// slope is the median of the slopes between all pairs of samples, per second (Theil
// and Sen): single samples during a fault do not move it.
func slope(samples []sample, of func(sample) float64) float64 {
	var all []float64
	for i := range samples {
		for j := i + 1; j < len(samples); j++ {
			all = append(all, (of(samples[j])-of(samples[i]))/(samples[j].at-samples[i].at).Seconds())
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}
