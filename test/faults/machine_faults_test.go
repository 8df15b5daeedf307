package faults

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"external-server/internal/support/brokertest"
)

// smallDisk gives the server that is started next a small file system of its own at
// the returned directory.
func (r *rig) smallDisk(kilobytes int) (inside string) {
	r.Helper()
	inside = filepath.Join(r.dir, "disk")
	if err := os.Mkdir(inside, 0o700); err != nil {
		r.Fatal(err)
	}
	r.opts.Prefix = r.inMountNamespace(fmt.Sprintf("mount -t tmpfs -o size=%dk tmpfs %s", kilobytes, inside))
	return inside
}

// outside is the path of a file of the server's own file system.
func (r *rig) outside(pid int, path string) string { return fmt.Sprintf("/proc/%d/root%s", pid, path) }

// inServer runs a shell command in the mount name space of the server.
func (r *rig) inServer(command string) {
	r.Helper()
	cmd := exec.Command("nsenter", "--mount", "--target", strconv.Itoa(r.server.PID()), "sh", "-c", command)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Fatalf("%s: %v: %s", command, err, out)
	}
}

// fill writes until the disk is full and returns the file.
func (r *rig) fill(path string) string {
	r.Helper()
	f, err := os.Create(path)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	block := bytes.Repeat([]byte("x"), 4096)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); err != nil {
			size /= 2 // the last bytes too
		}
	}
	return path
}

// logTo lets the server log everything into the directory.
func (r *rig) logTo(dir string) {
	r.config["logging"] = obj{
		"console": obj{"level": "WARNING", "use": true},
		"file":    obj{"level": "DEBUG", "use": true, "path": dir, "max_size_bytes": 50_000, "files_to_keep": 2},
	}
}

func machineFaults() []scenario {
	return []scenario{
		// LOG-7: the log does not stop the service.
		{"disk-full", "disk of the log full for 15 s", false, func(r *rig) {
			r.startBroker(false, brokertest.Options{})
			disk := r.smallDisk(400)
			cars := fleetOf("car", r.size(50, 10), recorder, nil)
			r.configure(cars)
			r.logTo(disk)
			r.startServer()
			r.startCars(cars, r.during(500*time.Millisecond, 100*time.Millisecond))
			filler := r.fill(r.outside(r.server.PID(), disk+"/filler"))
			pause(15 * time.Second)
			r.server.WaitLog("no space left on device")
			r.remove(filler)
			r.recovered(time.Now())
			r.unaffected(r.crew.cars)
			r.fewWarnings("no space left on device", 3)
			r.finish("")
		}},
		{"log-read-only", "file system of the log read-only for 15 s", false, func(r *rig) {
			r.startBroker(false, brokertest.Options{})
			disk := r.smallDisk(4000)
			cars := fleetOf("car", r.size(50, 10), recorder, nil)
			r.configure(cars)
			r.logTo(disk)
			r.startServer()
			r.startCars(cars, r.during(500*time.Millisecond, 100*time.Millisecond))
			r.inServer("mount --bind " + disk + " " + disk + " && mount -o remount,bind,ro " + disk)
			pause(15 * time.Second)
			r.server.WaitLog("read-only file system")
			r.inServer("umount " + disk)
			r.recovered(time.Now())
			r.unaffected(r.crew.cars)
			r.finish("")
		}},
		{"store-full", "disk of the HTTP API's store full for 20 s", false, func(r *rig) {
			api := r.startAPI(2000)
			r.fleetOnAPI(api)
			filler := r.fill(r.outside(api.server.PID(), api.disk+"/filler"))
			pause(20 * time.Second)
			r.remove(filler)
			r.recovered(time.Now())
			r.unaffected(r.crew.cars)
			r.finishOnAPI(api)
		}},
		// REC-14.
		{"descriptors", "all descriptors used up by strangers for 15 s, module crashes meanwhile", true, func(r *rig) {
			cars := fleetOf("other", r.size(20, 5), spare, fleetOf("car", r.size(20, 5), recorder, nil))
			r.configure(cars)
			r.embedBroker()
			limit := 64 + 2*len(cars)
			r.opts.Prefix = []string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}
			r.startServer()
			r.startCars(cars, 200*time.Millisecond)
			var strangers []net.Conn
			for range 4 * limit {
				c, err := net.DialTimeout("tcp", r.brokerAddress(), time.Second)
				if err != nil {
					break
				}
				strangers = append(strangers, c)
			}
			r.touch(r.trigger(recorder, "crash"))
			pause(r.during(15*time.Second, 3*time.Second))
			for _, c := range strangers {
				_ = c.Close()
			}
			r.recovered(time.Now())
			r.unaffected(r.group("other"))
			r.row.Note = fmt.Sprintf("limit %d, %d strangers", limit, len(strangers))
			r.finish("")
		}},
		// REC-22.
		{"memory", "module hangs for 25 s under 5 MB/s, GOMEMLIMIT 150 MiB", false, func(r *rig) {
			r.opts.Env = []string{"GOMEMLIMIT=150MiB"}
			r.startBroker(false, brokertest.Options{})
			cars := fleetOf("other", 20, spare, fleetOf("car", 20, recorder, nil))
			r.configure(cars)
			r.config["limits"] = obj{"module_queue": 50}
			r.startServer()
			r.server.WaitLog("connected to the broker")
			r.startCars(cars, 200*time.Millisecond)
			for _, c := range r.group("car") {
				c.mu.Lock()
				c.tail = " " + strings.Repeat("x", 50_000)
				c.mu.Unlock()
			}
			r.touch(r.trigger(recorder, "hang"))
			pause(25 * time.Second)
			largest := residentKB(r, r.server.PID())
			r.remove(r.trigger(recorder, "hang"))
			r.recovered(time.Now())
			r.unaffected(r.group("other"))
			r.row.Note = fmt.Sprintf("resident %d MB, race detector included", largest/1024)
			r.finish("")
		}},
	}
}

// fewWarnings demands that a lasting fault is not logged again and again.
func (r *rig) fewWarnings(text string, most int) {
	r.Helper()
	if n := strings.Count(r.server.Log(), text); n > most {
		r.Errorf("%q was logged %d times, expected at most %d", text, n, most)
	}
}

// residentKB is the resident memory of a process in KiB.
func residentKB(r *rig, pid int) int { return status(r, pid, "VmRSS") }

// status returns a number of /proc/PID/status.
func status(r *rig, pid int, key string) int {
	r.Helper()
	text := r.read(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				r.Fatal(err)
			}
			return n
		}
	}
	r.Fatalf("/proc/%d/status has no %s", pid, key)
	return 0
}

// reload sends SIGHUP.
func (r *rig) reload() { r.server.Signal(syscall.SIGHUP) }
