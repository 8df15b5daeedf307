package bench_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"external-server/internal/lab/bench"
	"external-server/internal/module/host"
	"external-server/internal/support/etcdtest"
	"external-server/internal/support/testneed"
)

// TestMain makes the test binary a child of a benchmark when it is called as one.
func TestMain(m *testing.M) {
	host.RunIfHost()
	if len(os.Args) == 3 && os.Args[1] == "child" {
		if err := bench.RunChild(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func options(t *testing.T) bench.Options {
	t.Helper()
	if testing.Short() {
		t.Skip("left out with -short: it measures servers in processes of their own")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return bench.Options{
		Self: []string{self, "child"}, Runs: 1, Seconds: 0.2,
		Big: 20, BigRate: 200, BigSeconds: 0.5, Progress: t.Logf,
	}
}

// The rows of clusters are measured with a real etcd.
func TestRowsOfClusters(t *testing.T) {
	testneed.Tool(t, "mosquitto", "mosquitto", "/usr/sbin/mosquitto")
	t.Setenv(etcdtest.Variable, etcdtest.Path(t))
	o := options(t)
	o.Mosquitto = true
	o.Rows = regexp.MustCompile(`^cluster-(100|big|etcd)$`)
	r, err := bench.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	figures := make(map[string]*bench.Stat)
	for _, res := range r.Results {
		figures[res.Row+res.Title] = res.Server
	}
	if len(figures) != 2+11+8 {
		t.Errorf("%d figures", len(figures))
	}
	for _, res := range r.Results {
		// Nothing is written per car.
		if res.Row == "cluster-etcd" && strings.HasSuffix(res.Title, "writes of etcd") && res.Server.Median >= 10 {
			t.Errorf("%s: %+v", res.Title, res.Server)
		}
		if res.Row == "cluster-etcd" && strings.HasSuffix(res.Title, "keys in etcd") && res.Server.Median < 32+3 {
			t.Errorf("%s: %+v", res.Title, res.Server)
		}
	}
}

// Every row can be measured, on every kind of broker the machine has, and the table
// has a figure of the server for each.
func TestRowsAreMeasured(t *testing.T) {
	testneed.Tool(t, "mosquitto", "mosquitto", "/usr/sbin/mosquitto")
	for name, own := range map[string]bool{"embedded": false, "mosquitto": true} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.Mosquitto = own
			o.Rows = regexp.MustCompile(`^(closed-10|storm-100|commands|start-20|big-.*|memory-1|library-10|library-connected-20)$`)
			if own {
				o.Rows = regexp.MustCompile(`^closed-1$`)
			}
			r, err := bench.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			rows := make(map[string]bool)
			for _, res := range r.Results {
				rows[res.Row] = true
				if res.Server == nil || res.Server.Median == 0 && res.Unit != "" {
					t.Errorf("%s has no figure: %+v", res.Title, res.Server)
				}
			}
			if want := 1; own && len(rows) != want {
				t.Errorf("rows %v, want %d", rows, want)
			} else if want = 10; !own && len(rows) != want {
				t.Errorf("rows %v, want %d", rows, want)
			}
			var table bytes.Buffer
			if err := r.WriteTable(&table); err != nil {
				t.Fatal(err)
			}
			for _, res := range r.Results {
				if !strings.Contains(table.String(), res.Title) {
					t.Errorf("the table lacks %q", res.Title)
				}
			}
		})
	}
}

// Growth yields points for the plot, and the plot is well-formed.
func TestGrowthIsPlotted(t *testing.T) {
	o := options(t)
	o.Big = 3
	r, err := bench.Growth(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Growth) != 6 {
		t.Errorf("%d points for 1 and 3 cars, want 3 roles each", len(r.Growth))
	}
	svg, err := bench.Plot(r)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(svg))
	lines := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if lines != 6 {
		t.Errorf("%d lines, want 6", lines)
	}
	if _, err := bench.Plot(bench.Report{}); err == nil {
		t.Error("an empty report is plotted")
	}
}

// What cannot be measured is refused with a reason.
func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*bench.Options){
		"child":   func(o *bench.Options) { o.Self = nil },
		"exclude": func(o *bench.Options) { o.Broker, o.Mosquitto = "127.0.0.1:1883", true },
		"runs":    func(o *bench.Options) { o.Runs = 0 },
		"last":    func(o *bench.Options) { o.Seconds = 0 },
		"cars":    func(o *bench.Options) { o.Big = -1 },
		"second":  func(o *bench.Options) { o.BigRate = 0 },
		"broker":  func(o *bench.Options) { o.Broker = "nowhere" },
	} {
		o := bench.Options{Self: []string{"true"}, Runs: 1, Seconds: 1, Big: 1, BigRate: 1, BigSeconds: 1}
		change(&o)
		if _, err := bench.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A child that does not start is an error that says why, and a foreign call too.
func TestChildren(t *testing.T) {
	o := bench.Options{Self: []string{"sh", "-c", "echo no such luck >&2; exit 1"}, Runs: 1, Seconds: 1, Big: 1, BigRate: 1, BigSeconds: 1}
	if _, err := bench.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("error %v", err)
	}
	for _, text := range []string{"", "{}", `{"Role":"nothing"}`} {
		in, out := io.Pipe()
		if err := bench.RunChild(t.Context(), text, in, io.Discard); err == nil {
			t.Errorf("%q is accepted", text)
		}
		_ = out.Close()
	}
}

// The library that does nothing has the functions and the types of the interface.
func TestLibraryFitsTheHeader(t *testing.T) {
	cc := testneed.Tool(t, "gcc", "gcc", "cc")
	text, err := exec.Command(cc, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
		"-include", "../../../modules/include/fleet_protocol_module.h", "library/null.c").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}

// A table that was measured beside other programs says so.
func TestBusyMachineIsNamed(t *testing.T) {
	for busy, want := range map[float64]bool{3: false, 80: true} {
		var table bytes.Buffer
		r := bench.Report{BusyAfter: busy}
		if err := r.WriteTable(&table); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(table.String(), "NOTE: other programs used") != want {
			t.Errorf("%v %% busy:\n%s", busy, &table)
		}
	}
}
