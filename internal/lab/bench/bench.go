package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
)

// Report is what a benchmark has measured, where and how.
type Report struct {
	Date       string   `json:"date"`
	Command    string   `json:"command"`
	Machine    string   `json:"machine"`
	Broker     string   `json:"broker"`
	Runs       int      `json:"runs"`
	Seconds    float64  `json:"seconds_per_run"`
	Big        int      `json:"big_cars"`
	BigRate    float64  `json:"big_statuses_per_second"`
	BigSeconds float64  `json:"big_seconds"`
	LoadBefore string   `json:"load_average_before"`
	BusyBefore float64  `json:"busy_before_percent"` // of all processors, by other programs
	BusyAfter  float64  `json:"busy_after_percent"`
	LoadAfter  string   `json:"load_average_after"`
	Results    []Result `json:"results"`
	Growth     []Point  `json:"growth,omitempty"`
}

// bencher is a benchmark that runs.
type bencher struct {
	opts   Options
	place  *place
	serial int    // of the child processes
	built  string // the library that does nothing; "": not yet
	dir    string // of it
}

// Run measures and returns the report. When ctx ends it returns what it has, and
// an error.
func Run(ctx context.Context, opts Options) (Report, error) {
	return run(ctx, opts, func(ctx context.Context, b *bencher, r *Report) error {
		for _, s := range b.table() {
			if err := b.measure(ctx, s, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func run(ctx context.Context, opts Options, measure func(context.Context, *bencher, *Report) error) (Report, error) {
	if err := opts.complete(); err != nil {
		return Report{}, err
	}
	p, err := openPlace(ctx, &opts)
	if err != nil {
		return Report{}, err
	}
	defer p.close()
	b := &bencher{opts: opts, place: p}
	defer b.clean()
	r := Report{
		Date: time.Now().UTC().Format(time.RFC3339), Machine: machine(), Broker: brokerName(p), Runs: opts.Runs,
		Seconds: opts.Seconds, Big: opts.Big, BigRate: opts.BigRate, BigSeconds: opts.BigSeconds, LoadBefore: loadAverage(),
	}
	r.BusyBefore = busy(ctx)
	err = measure(ctx, b, &r)
	r.LoadAfter, r.BusyAfter = loadAverage(), busy(ctx)
	return r, err
}

// measure runs one scenario if it is wanted.
func (b *bencher) measure(ctx context.Context, s scenario, r *Report) error {
	if b.opts.Rows != nil && !b.opts.Rows.MatchString(s.name) {
		return nil
	}
	if s.needs != nil && !s.needs(b.place) {
		b.opts.Progress("%s: left out, it needs a broker of its own (mosquitto) or a C compiler", s.name)
		return nil
	}
	runs := s.runs
	if runs == 0 {
		runs = b.opts.Runs
	}
	figures := make(map[string]map[string][]float64) // by role and key
	for i := range runs {
		for k := range s.roles {
			role := s.roles[(k+i)%len(s.roles)]
			v, err := s.run(ctx, b, role)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, role, err)
			}
			if figures[role] == nil {
				figures[role] = make(map[string][]float64)
			}
			for key, x := range v {
				figures[role][key] = append(figures[role][key], x)
			}
			b.opts.Progress("%s %d/%d %s: %s", s.name, i+1, runs, role, describe(v))
		}
	}
	for _, m := range s.metrics {
		res := Result{key: m.key, Row: s.name, Title: m.title, Unit: m.unit, Server: statOf(figures[s.roles[0]][m.key])}
		if len(s.roles) > 1 {
			res.Echo = statOf(figures[s.roles[1]][m.key])
		}
		res.judge(m.target)
		r.Results = append(r.Results, res)
	}
	return nil
}

// beside completes the options of a second fleet of the running child: cars after
// the first ones.
func (b *bencher) beside(o simulate.Options, after int) simulate.Options {
	o.Broker = gateway.Broker{Address: b.place.address}
	o.Company, o.Prefix, o.First = company, fmt.Sprintf("r%d_", b.serial), after+1
	o.Module, o.DeviceType, o.Devices, o.Payload, o.Seed = NullNumber, -1, 2, 100, 1
	return o
}

func describe(v map[string]float64) string {
	var parts []string
	for _, key := range []string{"rate", "p50", "p99", "cpu", "cpumodule", "cpucore", "lost", "missing", "rss", "threads", "connect", "ms", "alone", "beside", "limited", "back", "brokercpu", "brokerrss", "writes", "proposals", "etcdcpu", "received", "sent", "keys", "db"} {
		if x, ok := v[key]; ok {
			parts = append(parts, fmt.Sprintf("%s %s", key, figure(x)))
		}
	}
	return strings.Join(parts, ", ")
}

func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := ""
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%d × %s%s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

func brokerName(p *place) string {
	if p.own == nil {
		return p.name
	}
	out, _ := exec.Command(p.own.process.Path(), "-h").Output() // it exits with an error
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.Replace(first, " version", "", 1) + ", set_tcp_nodelay true, max_queued_messages 0"
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(text))
	return strings.Join(f[:min(3, len(f))], " ")
}

// busyTime is how long other programs are looked at.
const busyTime = time.Second

// busy is how much of the processors other programs use, in percent, while nothing is
// measured; 0 if the system does not say.
func busy(ctx context.Context) float64 {
	before, idle := processorTime()
	if before == 0 || wait(ctx, busyTime) != nil {
		return 0
	}
	after, idleAfter := processorTime()
	if after <= before {
		return 0
	}
	return 100 * (1 - (idleAfter-idle)/(after-before))
}

// processorTime reads the first line of /proc/stat: all time, and that without work.
func processorTime() (all, idle float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for n, field := range strings.Fields(line) {
		x, err := strconv.ParseFloat(field, 64)
		if err != nil { // the name, at the beginning
			continue
		}
		all += x
		if n == 4 || n == 5 { // idle, waiting for a disk
			idle += x
		}
	}
	return all, idle
}

// library returns the path of the library that does nothing.
func (b *bencher) library() (string, error) {
	if b.built != "" {
		return b.built, nil
	}
	dir, err := os.MkdirTemp("", "external-server-bench-")
	if err != nil {
		return "", err
	}
	b.dir = dir
	b.built, err = buildLibrary(dir)
	return b.built, err
}

func (b *bencher) clean() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}
