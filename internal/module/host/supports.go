package host

import (
	"time"

	"external-server/internal/module"
	pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"
)

// prefetched is how many device types, from 0 on, the answer to Start tells of.
const prefetched = 256

// askPatience is how long Supports waits for an answer of the process.
const askPatience = 20 * time.Millisecond

// Supports answers from what is known. A type that was never asked for is asked
// for in at most 20 ms; without an answer it counts as supported, and
// DeviceConnected decides: the module's side asks is_device_type_supported
// before it calls device_connected. A process that keeps one question waiting is not
// asked another one until it has answered: a gateway may name thousands of types.
// While the module is out of service nothing is supported (REC-6).
func (m *Module) Supports(deviceType uint32) bool {
	if answer, known := m.Recall(deviceType); known {
		return answer
	}
	m.mu.Lock()
	c := m.current
	switch {
	case m.closed:
		m.mu.Unlock()
		return false
	case m.overdue > 0 || c.isDead():
		m.mu.Unlock()
		return true
	}
	m.work.Add(1) // counted here, so that Close waits for it
	m.mu.Unlock()
	answered := make(chan bool, 1)
	var finished, late bool // guarded by m.mu
	go func() {             // sending may wait as well, when the process does not read
		defer m.work.Done()
		answered <- m.ask(c, deviceType)
		m.mu.Lock()
		defer m.mu.Unlock()
		if finished = true; late {
			m.overdue--
		}
	}()
	timer := time.NewTimer(askPatience)
	defer timer.Stop()
	select {
	case answer := <-answered:
		return answer
	case <-timer.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !finished {
		late = true
		m.overdue++
	}
	return true
}

// Recall implements module.Recaller: it answers from memory.
func (m *Module) Recall(deviceType uint32) (supported, known bool) {
	select {
	case <-m.outside:
		return false, true
	case <-m.stopped.Done():
		return false, true
	default:
	}
	m.typesMu.Lock()
	defer m.typesMu.Unlock()
	supported, known = m.supported[deviceType]
	return supported, known || len(m.supported) > 0 && deviceType < prefetched
}

// ask asks the process whether it supports the type, and remembers the answer.
func (m *Module) ask(c *child, deviceType uint32) bool {
	result, err := c.request(m.stopped, &pb.ServerFrame{Kind: &pb.ServerFrame_Supports{Supports: &pb.Supports{Type: deviceType}}},
		&pending{op: "is_device_type_supported", limit: m.opts.CallTimeout})
	if err != nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.typesMu.Lock()
	defer m.typesMu.Unlock()
	if m.current == c && len(m.supported) < module.MaxRecalled {
		m.supported[deviceType] = result.GetCode() == module.CodeOK
	}
	return result.GetCode() == module.CodeOK
}
