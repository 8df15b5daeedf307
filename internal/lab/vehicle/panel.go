package vehicle

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// Panel is a simulated IO device with a button, two inputs and two lamps
// (MM-31). Its methods may be called concurrently.
type Panel struct {
	mu      sync.Mutex
	lamps   [2]bool
	pressed bool
}

// Press presses or releases the button.
func (p *Panel) Press(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pressed = down
}

// Status returns the IO status (MM-31) as JSON.
func (p *Panel) Status() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	type input struct {
		Num   int `json:"inNum"`
		State int `json:"inSt"`
	}
	type output struct {
		Num   int `json:"outNum"`
		Err   int `json:"outErr"`
		State int `json:"outSt"`
	}
	outputs := make([]output, len(p.lamps))
	for i, on := range p.lamps {
		outputs[i] = output{Num: i}
		if on {
			outputs[i].State = 1
		}
	}
	button := 0
	if p.pressed {
		button = 1
	}
	return mustJSON([]any{
		[]input{{Num: 0, State: button}, {Num: 1}},
		outputs,
		map[string]int{"butPr": button},
	})
}

// Command takes an IO command (MM-34) and returns what it does in words.
func (p *Panel) Command(data []byte) (string, error) {
	var actions []struct {
		Out    int `json:"outNum"`
		Action int `json:"actType"`
	}
	if err := json.Unmarshal(data, &actions); err != nil {
		return "", fmt.Errorf("not an IO command: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var did []string
	for _, a := range actions {
		if a.Out < 0 || a.Out >= len(p.lamps) {
			return strings.Join(did, ", "), fmt.Errorf("output %d does not exist, there are 0 to %d", a.Out, len(p.lamps)-1)
		}
		switch a.Action {
		case 0:
			p.lamps[a.Out] = false
		case 1:
			p.lamps[a.Out] = true
		case 2:
			p.lamps[a.Out] = !p.lamps[a.Out]
		default:
			return strings.Join(did, ", "), fmt.Errorf("action %d does not exist, expected 0 off, 1 on or 2 toggle", a.Action)
		}
		word := "off"
		if p.lamps[a.Out] {
			word = "on"
		}
		did = append(did, fmt.Sprintf("lamp %d goes %s", a.Out, word))
	}
	if len(did) == 0 {
		return "changes nothing", nil
	}
	return strings.Join(did, ", "), nil
}
