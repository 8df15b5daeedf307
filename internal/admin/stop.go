package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"external-server/internal/state/process"
)

// stopped is the answer to a stop.
type stopped struct {
	Result  string     `json:"result"`
	Process process.ID `json:"process"` // that ends
}

// stop reads {"final": true}, or nothing. The answer leaves before the endpoint ends,
// which is after the cars.
func (s *Server) stop(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Final bool `json:"final"`
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		fail(w, http.StatusBadRequest, fmt.Sprintf("the body cannot be read: %v; expected {\"final\": true} or nothing", err))
		return
	}
	if decoder.More() {
		fail(w, http.StatusBadRequest, "there is something after the JSON object")
		return
	}
	text, self, err := s.opts.Source.Stop(body.Final)
	switch {
	case errors.Is(err, ErrStopping):
		fail(w, http.StatusConflict, err.Error())
	case err != nil:
		fail(w, http.StatusInternalServerError, err.Error())
	default:
		s.told(r, "", text)
		answer(w, http.StatusAccepted, stopped{Result: text, Process: self})
	}
}
