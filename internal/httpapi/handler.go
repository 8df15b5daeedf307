package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
)

// BasePath is the path below which the API lives; what module configurations
// call api_url ends with it (HTTP-1).
const BasePath = "/v2/protocol"

// handler is the API over HTTP.
type handler struct {
	core    *core
	stats   *counters
	log     *slog.Logger
	keys    *keyring // nil: requests from this machine need none
	trusted bool     // requests come from this process and need no key
	maxBody int64
}

// route is what a path means.
type route struct {
	name    string // such as /status, for counters
	methods string // for Allow
	open    bool   // needs no key
	serve   func(h *handler, w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error
}

// routes has the routes by the first part of the path below BasePath. Those with
// a trailing slash are followed by company and car.
var routes = map[string]*route{
	"status/":            {name: "/status", methods: "GET, HEAD, POST", serve: serveMessages(kindStatus)},
	"command/":           {name: "/command", methods: "GET, HEAD, POST", serve: serveMessages(kindCommand)},
	"available-devices/": {name: "/available-devices", methods: "GET, HEAD", serve: (*handler).serveDevices},
	"cars":               {name: "/cars", methods: "GET, HEAD", serve: (*handler).serveCars},
	"openapi.json":       {name: "/openapi.json", methods: "GET, HEAD", open: true, serve: serveFile("application/json", openAPI)},
	"ui":                 {name: "/ui", methods: "GET, HEAD", open: true, serve: serveFile("text/html; charset=utf-8", uiPage)},
}

var uiRoute = routes["ui"]

func findRoute(path string) (*route, fleet.CarID, error) {
	if path == "/" {
		return uiRoute, fleet.CarID{}, nil
	}
	notFound := newError(http.StatusNotFound, "there is nothing at this path; the API is below %s, its description at %s/openapi.json", BasePath, BasePath)
	rest, ok := strings.CutPrefix(path, BasePath+"/")
	if !ok {
		return nil, fleet.CarID{}, notFound
	}
	first, names, withCar := strings.Cut(rest, "/")
	if withCar {
		first += "/"
	}
	rt := routes[first]
	if rt == nil {
		if routes[first+"/"] != nil {
			return nil, fleet.CarID{}, newError(http.StatusNotFound, "company and car are missing; expected %s/%s/{company_name}/{car_name}", BasePath, first)
		}
		return nil, fleet.CarID{}, notFound
	}
	if !withCar {
		return rt, fleet.CarID{}, nil
	}
	company, car, ok := strings.Cut(names, "/")
	if !ok {
		return nil, fleet.CarID{}, newError(http.StatusNotFound, "the car is missing; expected %s%s/{company_name}/{car_name}", BasePath, rt.name)
	}
	id := fleet.CarID{Company: company, Car: car}
	return rt, id, checkCar(id)
}

// ServeHTTP answers one request. Errors have the JSON form of Error, except that
// GET of something unknown is 404 with an empty array (HTTP-12, HTTP-13).
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	recorder := &statusRecorder{ResponseWriter: w}
	rt, car, err := findRoute(r.URL.Path)
	name := "other"
	if rt != nil {
		name = rt.name
	}
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodPost:
	case http.MethodHead:
		method = http.MethodGet
	default:
		method = "other"
	}
	recorder.Header().Set("X-Content-Type-Options", "nosniff")
	recorder.Header().Set("Cache-Control", "no-store")
	if err == nil || rt != nil {
		err = h.serve(recorder, r, rt, car, err)
	}
	if err != nil {
		h.fail(recorder, r, err)
	}
	h.stats.request(method+" "+name, recorder.code)
	h.log.Debug("http api request", "method", r.Method, "path", r.URL.Path, "code", recorder.code, "client", r.RemoteAddr)
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, rt *route, car fleet.CarID, pathErr error) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		// The text of the error would repeat the query, and with it the key.
		return newError(http.StatusBadRequest, "the query string is malformed; expected name=value pairs, percent-encoded, separated by &")
	}
	if !rt.open {
		if err := h.authenticate(r, q); err != nil {
			return err
		}
	}
	if pathErr != nil {
		return pathErr
	}
	if !slices.Contains(strings.Split(rt.methods, ", "), r.Method) {
		w.Header().Set("Allow", rt.methods)
		return newError(http.StatusMethodNotAllowed, "the method %s is not allowed here; allowed are %s", quote(r.Method), rt.methods)
	}
	return rt.serve(h, w, r, q, car)
}

// authenticate decides about HTTP-2. Keys are compared by their hash.
func (h *handler) authenticate(r *http.Request, q url.Values) error {
	unauthorized := func(detail string) error { return newError(http.StatusUnauthorized, "%s", detail) }
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	bearer := strings.EqualFold(scheme, "Bearer")
	keys := q["api_key"]
	switch {
	case bearer && len(keys) > 0:
		return unauthorized("both an api_key and a bearer token were given; send the query parameter api_key only")
	case h.trusted:
		return nil
	case h.keys == nil:
		// A page of a stranger in a browser on this machine can send requests here
		// under a name of its own; it cannot send them under ours.
		if !loopbackHost(r.Host) {
			return unauthorized("this server has no API keys and answers only requests for localhost; configure http_api.keys_file to serve others")
		}
		return nil
	case bearer:
		return unauthorized("this server issues and accepts no bearer tokens; use the query parameter api_key")
	case len(keys) == 0 || keys[0] == "":
		return unauthorized("the query parameter api_key is missing")
	case len(keys) > 1:
		return unauthorized("the query parameter api_key was given more than once")
	case !h.keys.valid(keys[0]):
		return unauthorized("the api_key is not known; 'external-server http-api key list' shows the names of those that are")
	}
	return nil
}

func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// fail writes an error.
func (h *handler) fail(w *statusRecorder, r *http.Request, err error) {
	var e *Error
	switch {
	case errors.As(err, &e):
	case r.Context().Err() != nil || errors.Is(err, context.Canceled):
		// The client has gone; nobody reads this.
		e = newError(499, "the client closed the request")
		e.Title = "Client Closed Request"
	default:
		h.log.Error("http api request failed", "path", r.URL.Path, "error", err)
		e = newError(http.StatusInternalServerError, "internal error; the server's log tells why")
	}
	if e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, r, e.Status, "application/problem+json", e)
}

func writeJSON(w http.ResponseWriter, r *http.Request, code int, contentType string, value any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // fails only when the client has gone
}

func serveMessages(k kind) func(*handler, http.ResponseWriter, *http.Request, url.Values, fleet.CarID) error {
	return func(h *handler, w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error {
		if r.Method == http.MethodPost {
			return h.postMessages(k, w, r, car)
		}
		return h.getMessages(k, w, r, q, car)
	}
}

func (h *handler) getMessages(k kind, w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error {
	query, err := h.readQuery(w, q)
	if err != nil {
		return err
	}
	messages, err := h.core.read(r.Context(), k, car, query)
	if StatusOf(err) == http.StatusNotFound {
		writeJSON(w, r, http.StatusNotFound, "application/json", []Message{})
		return nil
	}
	if err != nil {
		return err
	}
	writeJSON(w, r, http.StatusOK, "application/json", messages)
	return nil
}

func (h *handler) postMessages(k kind, w http.ResponseWriter, r *http.Request, car fleet.CarID) error {
	// Only a declared JSON body: a browser sends nothing else across origins
	// without asking first.
	if declared := r.Header.Get("Content-Type"); declared != "" {
		if mediaType, _, err := mime.ParseMediaType(declared); err != nil || mediaType != "application/json" {
			return newError(http.StatusUnsupportedMediaType, "the Content-Type is %s; expected application/json", quote(declared))
		}
	} else if r.Header.Get("Origin") != "" {
		return newError(http.StatusUnsupportedMediaType, "the Content-Type is missing; expected application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return newError(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, which is the limit; send fewer messages per request", tooLarge.Limit)
		}
		if r.Context().Err() != nil {
			return err
		}
		return newError(http.StatusBadRequest, "the body could not be read to its end")
	}
	messages, err := decodeMessages(k, body)
	if err != nil {
		return err
	}
	if err := h.core.post(r.Context(), k, car, messages); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, "stored "+strconv.Itoa(len(messages))+" "+k.String()+" message(s)\n")
	return nil
}

func (h *handler) serveCars(w http.ResponseWriter, r *http.Request, q url.Values, _ fleet.CarID) error {
	query, err := h.readQuery(w, q)
	if err != nil {
		return err
	}
	cars, err := h.core.Cars(r.Context(), query)
	if err != nil {
		return err
	}
	writeJSON(w, r, http.StatusOK, "application/json", cars)
	return nil
}

func (h *handler) serveDevices(w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error {
	var module *int64
	text, given, err := single(q, "module_id")
	if err != nil {
		return err
	}
	if given {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return newError(http.StatusBadRequest, "module_id is %s; expected an integer of 0 or more", quote(text))
		}
		module = &n
	}
	modules, err := h.core.AvailableDevices(r.Context(), car, module)
	switch {
	case StatusOf(err) == http.StatusNotFound:
		writeJSON(w, r, http.StatusNotFound, "application/json", []Module{})
	case err != nil:
		return err
	case module != nil: // one object instead of an array (HTTP-9)
		writeJSON(w, r, http.StatusOK, "application/json", modules[0])
	default:
		writeJSON(w, r, http.StatusOK, "application/json", modules)
	}
	return nil
}

func single(q url.Values, name string) (value string, given bool, err error) {
	values := q[name]
	if len(values) > 1 {
		return "", false, newError(http.StatusBadRequest, "%s was given %d times; expected once", name, len(values))
	}
	if len(values) == 0 {
		return "", false, nil
	}
	return values[0], true, nil
}

// readQuery reads since and wait. A request that will wait may stay longer than
// the time in which a request must have arrived.
func (h *handler) readQuery(w http.ResponseWriter, values url.Values) (Query, error) {
	q, err := parseQuery(values)
	if err == nil && q.Wait {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{}) // not supported in process, where there is none
		_ = control.SetWriteDeadline(time.Now().Add(h.core.waitTimeout() + writeTimeout))
	}
	return q, err
}

func parseQuery(values url.Values) (Query, error) {
	var q Query
	text, given, err := single(values, "since")
	if err != nil {
		return q, err
	}
	if given {
		if q.Since, err = strconv.ParseInt(text, 10, 64); err != nil {
			return q, newError(http.StatusBadRequest, "since is %s; expected an integer: milliseconds since 1970", quote(text))
		}
	}
	text, given, err = single(values, "wait")
	if err != nil {
		return q, err
	}
	if given {
		switch strings.ToLower(text) {
		case "true", "1":
			q.Wait = true
		case "false", "0":
		default:
			return q, newError(http.StatusBadRequest, "wait is %s; expected true or false", quote(text))
		}
	}
	return q, nil
}

func serveFile(contentType string, content []byte) func(*handler, http.ResponseWriter, *http.Request, url.Values, fleet.CarID) error {
	return func(_ *handler, w http.ResponseWriter, r *http.Request, _ url.Values, _ fleet.CarID) error {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		w.WriteHeader(http.StatusOK)
		if r.Method != http.MethodHead {
			_, _ = w.Write(content)
		}
		return nil
	}
}

// statusRecorder remembers the status code for the counters.
type statusRecorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader notes the code.
func (s *statusRecorder) WriteHeader(code int) {
	if s.code == 0 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
