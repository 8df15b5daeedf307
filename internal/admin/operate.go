package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"external-server/internal/logging"
	"external-server/internal/observe"
)

// done is the answer to what an operator did.
type done struct {
	Result string `json:"result"`
}

func (s *Server) disconnect(w http.ResponseWriter, r *http.Request) {
	s.act(w, r, s.opts.Source.Disconnect, "the session ends and the gateway is told; it connects anew by itself")
}

func (s *Server) reannounce(w http.ResponseWriter, r *http.Request) {
	s.act(w, r, s.opts.Source.Reannounce, "the gateway is asked to connect anew and to announce its devices")
}

func (s *Server) act(w http.ResponseWriter, r *http.Request, do func(string) error, result string) {
	name := r.PathValue("car")
	err := do(name)
	switch {
	case errors.Is(err, ErrNoCar):
		fail(w, http.StatusNotFound, "car "+name+" is not served")
	case errors.Is(err, ErrNotNow):
		fail(w, http.StatusConflict, err.Error())
	case err != nil:
		fail(w, http.StatusInternalServerError, err.Error())
	default:
		s.told(r, name, result)
		answer(w, http.StatusAccepted, done{Result: result})
	}
}

// told puts what an operator did into the event stream.
func (s *Server) told(r *http.Request, car, text string) {
	s.opts.Hub.Events.Put(observe.Event{Kind: observe.KindOperator, Car: car, Reason: operatorOf(r), Text: text})
}

// operatorOf is what people call who makes a request.
func operatorOf(r *http.Request) string {
	if name := who(r).name; name != "" {
		return name
	}
	return "somebody on this machine"
}

// levelJSON is the level of a component.
type levelJSON struct {
	Level      string `json:"level"`
	Configured string `json:"configured"`
	// Overridden tells that an operator has set the level.
	Overridden bool `json:"overridden"`
}

func (s *Server) logLevels(w http.ResponseWriter, _ *http.Request) {
	out := make(map[string]levelJSON)
	for component, l := range s.opts.Source.LogLevels() {
		out[component] = levelJSON{Level: logging.LevelName(l.Now), Configured: logging.LevelName(l.Configured), Overridden: l.Overridden}
	}
	answer(w, http.StatusOK, out)
}

// setLogLevel reads {"level": "DEBUG"}.
func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Level string `json:"level"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, fmt.Sprintf("the body cannot be read: %v; expected such as {\"level\": \"DEBUG\"}", err))
		return
	}
	if decoder.More() {
		fail(w, http.StatusBadRequest, "there is something after the JSON object")
		return
	}
	level, err := logging.ParseLevel(body.Level)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	s.levelled(w, r, s.opts.Source.SetLogLevel(r.PathValue("component"), level), strings.ToUpper(body.Level))
}

// resetLogLevel gives a component the level of the configuration again.
func (s *Server) resetLogLevel(w http.ResponseWriter, r *http.Request) {
	s.levelled(w, r, s.opts.Source.ResetLogLevel(r.PathValue("component")), "that of the configuration")
}

func (s *Server) levelled(w http.ResponseWriter, r *http.Request, err error, level string) {
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	text := "log level of " + r.PathValue("component") + ": " + level
	s.told(r, "", text)
	answer(w, http.StatusOK, done{Result: text})
}

// reload answers when it is over, which may take longer than other requests may.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	all, err := s.allParameter(r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the request was read
	_ = control.SetWriteDeadline(time.Now().Add(reloadTimeout))
	changes, err := s.opts.Source.Reload(r.Context())
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	s.told(r, "", "configuration reloaded: "+changes)
	if all {
		_ = control.SetWriteDeadline(time.Now().Add(time.Duration(len(s.others(r))+1) * reloadTimeout))
		s.reloadAll(w, r, changes)
		return
	}
	answer(w, http.StatusOK, done{Result: changes})
}
