package demo

import (
	"fmt"
	"io"
	"sync"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/vehicle"
)

// narrator tells what happens in words a person understands. A nil one is silent.
type narrator struct {
	mu       sync.Mutex
	out      io.Writer
	start    time.Time
	statuses int
	commands int
	connects int
	waits    []time.Duration // status sent to answer
	told     map[string]string
	running  map[string]bool // cars with a session
	ending   bool            // the servers are being stopped for good
	over     map[string]bool // cars whose session has ended since: their story is told
	restart  *restarted      // nil: not yet
}

func newNarrator(out io.Writer) *narrator {
	return &narrator{out: out, start: time.Now(), told: make(map[string]string), running: make(map[string]bool), over: make(map[string]bool)}
}

// say prints one line about a car, or about the whole when car is empty.
func (n *narrator) say(car, format string, args ...any) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over[car] {
		return
	}
	if car == "" {
		car = "server"
	}
	fmt.Fprintf(n.out, "%5.1f s  %-8s %s\n", time.Since(n.start).Seconds(), car, fmt.Sprintf(format, args...))
}

// sayOnce prints a line unless the last one about the subject was the same.
func (n *narrator) sayOnce(car, subject, text string) {
	if n == nil {
		return
	}
	n.mu.Lock()
	same := n.told[car+subject] == text
	n.told[car+subject] = text
	n.mu.Unlock()
	if !same {
		n.say(car, "%s", text)
	}
}

// ends says that the servers are stopped for good. A car whose session ends after that is
// not told of any more: it tries to connect again, and nothing is there to answer it.
func (n *narrator) ends(words string) {
	n.mu.Lock()
	n.ending = true
	n.mu.Unlock()
	n.say("", "%s", words)
}

// goodbyeTime bounds the wait for the cars to hear that the servers are stopped.
const goodbyeTime = 2 * time.Second

// goodbyes waits until no car has a session: what the servers have told the cars may arrive a moment
// after their processes have ended.
func (n *narrator) goodbyes() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(goodbyeTime); ; {
		n.mu.Lock()
		left := len(n.running)
		n.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			return
		}
	}
}

func (n *narrator) print(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprint(n.out, text)
}

func (n *narrator) welcome(opts *Options, at addresses) {
	api := at.api
	mission := fmt.Sprintf(`[{"device_id":{"module_id":1,"type":1,"role":"driving","name":"autonomy"},`+
		`"payload":{"message_type":"COMMAND","encoding":"JSON","data":{"action":"START","route":"tour","stops":[%s]}}}]`, mustJSON(vehicle.Places()[4]))
	const lamp = `[{"device_id":{"module_id":2,"type":4,"role":"panel","name":"panel"},` +
		`"payload":{"message_type":"COMMAND","encoding":"JSON","data":[{"outNum":1,"actType":2}]}}]`
	car, said := reader(carNames(opts.Cars)), ""
	if more := opts.Cars - narrated; more > 0 {
		said = fmt.Sprintf("Told is what the first %d do; %d more drive tours of their own, as the dashboard's map shows.\n", narrated, more)
	}
	for _, note := range at.notes {
		said += note + "\n"
	}
	n.print(fmt.Sprintf(`
Three processes now run: an MQTT broker (%v), the External Server with its mission and io modules and
the Fleet Protocol HTTP API (%v), and this one with %d simulated cars. The server will be restarted once
while they drive: they go on with their sessions.
%s
Send a car somewhere, from another terminal (this one tells what the cars do):

  curl -s -X POST -H 'Content-Type: application/json' 'http://%v/v2/protocol/command/%s/%s' -d '%s'

and see what it says:

  curl -s 'http://%v/v2/protocol/status/%s/%s?since=0' | tail -c 400

or switch the lamps of its panel, outNum 0 and 1, with actType 1 on, 0 off, 2 toggle:

  curl -s -X POST -H 'Content-Type: application/json' 'http://%v/v2/protocol/command/%s/%s' -d '%s'

The dashboard: http://%v/

`, at.broker, api, opts.Cars, said, api, company, car, mission, api, company, car, api, company, car, lamp, at.admin))
}

// observe turns the effects of a car's gateway into words.
func (n *narrator) observe(car string, told bool) func(gateway.Effect) {
	say := n.say
	if !told {
		say = (*narrator)(nil).say
	}
	return func(e gateway.Effect) {
		if e.Reason == gateway.ReasonStopped {
			return // the curtain has fallen
		}
		switch e.Kind {
		case gateway.EffectConnected:
			n.mu.Lock()
			n.connects++
			n.running[car] = true
			n.mu.Unlock()
			say(car, "connected: session %s", e.Session)
		case gateway.EffectSequenceFailed:
			say(car, "could not connect: %v; tries again", e.Reason)
		case gateway.EffectDisconnected:
			n.mu.Lock()
			delete(n.running, car)
			if n.restart != nil {
				n.restart.lost++
			}
			n.mu.Unlock()
			say(car, "disconnected: %v", e.Reason)
			n.mu.Lock()
			n.over[car] = n.ending
			n.mu.Unlock()
		case gateway.EffectAnswered:
			n.mu.Lock()
			n.statuses++
			n.waits = append(n.waits, time.Since(e.Sent))
			n.restart.answered(car, e.Sent)
			n.mu.Unlock()
		case gateway.EffectCommand:
			if len(e.Data) > 0 {
				n.count(&n.commands)
			}
		case gateway.EffectViolation:
			say(car, "the server broke the protocol: %v", e.Reason)
		}
	}
}

func (n *narrator) count(what *int) {
	n.mu.Lock()
	*what++
	n.mu.Unlock()
}

func (n *narrator) obeys(car string, device fleet.Device, did string, err error) {
	if err != nil {
		n.say(car, "%s refuses a command: %v", device.Name, err)
		return
	}
	n.say(car, "%s obeys: %s", device.Name, did)
}

func (n *narrator) summary() {
	n.mu.Lock()
	defer n.mu.Unlock()
	var worst, sum time.Duration
	for _, w := range n.waits {
		sum += w
		worst = max(worst, w)
	}
	mean := time.Duration(0)
	if len(n.waits) > 0 {
		mean = sum / time.Duration(len(n.waits))
	}
	fmt.Fprintf(n.out, "\nSummary: %d sessions, %d statuses answered (%v on average, %v at most), %d commands reached devices.\n",
		n.connects, n.statuses, mean.Round(10*time.Microsecond), worst.Round(10*time.Microsecond), n.commands)
}
