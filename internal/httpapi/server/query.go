package server

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"external-server/internal/httpapi"
)

// first returns the first value of a parameter (HTTP-19). The text null counts as not
// given: clients that were generated from the description of the API send it.
func first(q url.Values, name string) (value string, given bool) {
	values := q[name]
	if len(values) == 0 || values[0] == "null" {
		return "", false
	}
	return values[0], true
}

// readQuery reads since and wait. A request that will wait may stay longer than
// the time in which a request must have arrived.
func (h *handler) readQuery(w http.ResponseWriter, values url.Values) (httpapi.Query, error) {
	q, err := parseQuery(values)
	if err == nil && q.Wait {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{}) // not supported in process, where there is none
		_ = control.SetWriteDeadline(time.Now().Add(h.core.WaitTimeout() + writeTimeout))
	}
	return q, err
}

func parseQuery(values url.Values) (httpapi.Query, error) {
	var q httpapi.Query
	if text, given := first(values, "since"); given {
		var err error
		if q.Since, err = strconv.ParseInt(text, 10, 64); err != nil {
			return q, httpapi.NewError(http.StatusBadRequest, "since is %s; expected an integer: milliseconds since 1970", httpapi.Quote(text))
		}
	}
	if text, given := first(values, "wait"); given {
		switch strings.ToLower(text) {
		case "true":
			q.Wait = true
		case "false":
		default:
			return q, httpapi.NewError(http.StatusBadRequest, "wait is %s; expected true or false", httpapi.Quote(text))
		}
	}
	return q, nil
}

// parseModule reads module_id; nil means all modules.
func parseModule(values url.Values) (*int64, error) {
	text, given := first(values, "module_id")
	if !given {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, httpapi.NewError(http.StatusBadRequest, "module_id is %s; expected an integer of 0 or more", httpapi.Quote(text))
	}
	return &n, nil
}
