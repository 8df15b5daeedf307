package admin

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"external-server/internal/admin/commander"
	"external-server/internal/fleet"
	"external-server/internal/observe"
)

// noAPI is said where there is no HTTP API to send a command by.
const noAPI = "this server has no HTTP API of its own (the block http_api of the configuration); send commands where the modules of the car fetch them"

// commandTargets is the answer of GET /api/v1/cars/{car}/commands.
type commandTargets struct {
	Available bool               `json:"available"`        // commands can be sent from here
	Reason    string             `json:"reason,omitempty"` // why not
	Devices   []commander.Device `json:"devices"`          // that the HTTP API takes commands for
}

// commandable says to which devices of a car a command can be sent.
func (s *Server) commandable(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	if _, ok := s.opts.Source.Car(name); !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	out := commandTargets{Reason: noAPI, Devices: []commander.Device{}}
	if api := s.opts.Source.API(); api != nil {
		devices, err := commander.API{Transport: api, Company: s.opts.Source.Company()}.Devices(r.Context(), name)
		if out.Available = err == nil; out.Available {
			out.Reason, out.Devices = "", append(out.Devices, devices...)
		} else {
			out.Reason = err.Error()
		}
	}
	answer(w, http.StatusOK, out)
}

// sent is the answer to a command that was accepted.
type sent struct {
	done
	Order uint64 `json:"order"` // its number among the commands that operators have sent to the car
}

// sendCommand gives one message to the HTTP API, which checks and stores it as it does one
// of POST /command. What becomes of it is told with the car.
func (s *Server) sendCommand(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	c, ok := s.opts.Source.Car(name)
	if !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	api := s.opts.Source.API()
	if api == nil {
		fail(w, http.StatusConflict, noAPI)
		return
	}
	m, err := commander.Read(r.Body)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	// Numbers that no device has are the HTTP API's to refuse.
	device := fleet.Device{Module: int32(min(max(m.Device.Module, -1), math.MaxInt32)), Type: uint32(min(max(m.Device.Type, 0), math.MaxUint32)),
		Role: m.Device.Role, Name: m.Device.Name}
	delivered, err := s.opts.Source.CheckCommand(name, device.Module, m.Payload.Data)
	if err != nil {
		failAt(w, http.StatusUnprocessableEntity, "payload.data", err.Error())
		return
	}
	observed := s.opts.Hub.Car(c.ID)
	number := observed.Expect(observe.Order{By: operatorOf(r), At: time.Now(), Data: delivered, Device: device})
	err = commander.API{Transport: api, Company: s.opts.Source.Company()}.Send(r.Context(), name, m)
	var refused *commander.Refusal
	switch {
	case errors.As(err, &refused):
		observed.Withdraw(number)
		failAt(w, refused.Status, refused.Field, err.Error())
		return
	case err != nil:
		observed.Withdraw(number)
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	observed.Accepted(number)
	s.told(r, name, fmt.Sprintf("a command for module %d, role %s: %s", m.Device.Module, brief(m.Device.Role, 64), brief(string(m.Payload.Data), 200)))
	answer(w, http.StatusAccepted, sent{done{"the HTTP API has accepted the command; the module fetches it"}, number})
}

// brief is the beginning of a text, in characters.
func brief(s string, most int) string {
	if r := []rune(strings.ToValidUTF8(s, "?")); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
