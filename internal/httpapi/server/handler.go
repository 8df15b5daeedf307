package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
	"external-server/internal/httpapi/keys"
	"external-server/internal/peer"
)

// handler is the API over HTTP.
type handler struct {
	core    *core.Core
	stats   *requestCounters
	log     *slog.Logger
	keys    *keys.Ring // nil: requests from this machine need none
	trusted bool       // requests come from this process and need no key
	maxBody int64
	router  *router // nil: this server has all cars
	remote  bool    // requests come from other replicas, which answer their clients
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
	"status/":            {name: "/status", methods: "GET, HEAD, POST", serve: serveMessages(httpapi.KindStatus)},
	"command/":           {name: "/command", methods: "GET, HEAD, POST", serve: serveMessages(httpapi.KindCommand)},
	"available-devices/": {name: "/available-devices", methods: "GET, HEAD", serve: (*handler).serveDevices},
	"cars":               {name: "/cars", methods: "GET, HEAD", serve: (*handler).serveCars},
	"openapi.json":       {name: "/openapi.json", methods: "GET, HEAD", open: true, serve: serveFile("application/json", openAPI)},
	"ui":                 {name: "/ui", methods: "GET, HEAD", open: true, serve: serveFile("text/html; charset=utf-8", uiPage)},
}

var uiRoute = routes["ui"]

func findRoute(path string) (*route, fleet.CarID, error) {
	if path == "/" || path == httpapi.BasePath+"/ui/" {
		return uiRoute, fleet.CarID{}, nil
	}
	notFound := httpapi.NewError(http.StatusNotFound, "there is nothing at this path; the API is below %s, its description at %s/openapi.json", httpapi.BasePath, httpapi.BasePath)
	rest, ok := strings.CutPrefix(path, httpapi.BasePath+"/")
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
			return nil, fleet.CarID{}, httpapi.NewError(http.StatusNotFound, "company and car are missing; expected %s/%s/{company_name}/{car_name}", httpapi.BasePath, first)
		}
		return nil, fleet.CarID{}, notFound
	}
	if !withCar {
		return rt, fleet.CarID{}, nil
	}
	company, car, ok := strings.Cut(names, "/")
	if !ok || car == "" || company == "" {
		return nil, fleet.CarID{}, httpapi.NewError(http.StatusNotFound, "the company or the car is missing; expected %s%s/{company_name}/{car_name}", httpapi.BasePath, rt.name)
	}
	if strings.Contains(car, "/") {
		return nil, fleet.CarID{}, httpapi.NewError(http.StatusNotFound, "there is something after the car; expected %s%s/{company_name}/{car_name}", httpapi.BasePath, rt.name)
	}
	id := fleet.CarID{Company: company, Car: car}
	return rt, id, httpapi.CheckCar(id)
}

// ServeHTTP answers one request. Errors have the JSON form of Error, except that
// GET of something unknown is 404 with an empty array or object (HTTP-12, HTTP-13,
// HTTP-19).
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
	if h.remote {
		h.stats.countForOthers()
	} else {
		h.stats.count(method+" "+name, recorder.code)
	}
	if h.remote {
		from, _ := peer.FromRequest(r)
		h.log.Debug("http api request of another replica", "method", r.Method, "path", r.URL.Path, "code", recorder.code, "replica", from, "key", r.Header.Get(keyHeader))
		return
	}
	h.log.Debug("http api request", "method", r.Method, "path", r.URL.Path, "code", recorder.code, "client", r.RemoteAddr)
}

type keyNameKey struct{}

// nameOfKey returns the name of the key with which the request was admitted, "" if it
// needed none.
func nameOfKey(r *http.Request) string {
	name, _ := r.Context().Value(keyNameKey{}).(string)
	return name
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request, rt *route, car fleet.CarID, pathErr error) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		// The text of the error would repeat the query, and with it the key.
		return httpapi.NewError(http.StatusBadRequest, "the query string is malformed; expected name=value pairs, percent-encoded, separated by &")
	}
	if !rt.open {
		name, err := h.authenticate(r, q)
		if err != nil {
			return err
		}
		r = r.WithContext(context.WithValue(r.Context(), keyNameKey{}, name))
	}
	if pathErr != nil {
		return pathErr
	}
	if !slices.Contains(strings.Split(rt.methods, ", "), r.Method) {
		w.Header().Set("Allow", rt.methods)
		return httpapi.NewError(http.StatusMethodNotAllowed, "the method %s is not allowed here; allowed are %s", httpapi.Quote(r.Method), rt.methods)
	}
	return rt.serve(h, w, r, q, car)
}

// fail writes an error.
func (h *handler) fail(w *statusRecorder, r *http.Request, err error) {
	var e *httpapi.Error
	switch {
	case errors.As(err, &e):
	case r.Context().Err() != nil || errors.Is(err, context.Canceled):
		// The client has gone and does not read this.
		e = httpapi.NewError(499, "the client closed the request")
		e.Title = "Client Closed Request"
	default:
		h.log.Error("http api request failed", "path", r.URL.Path, "error", err)
		e = httpapi.NewError(http.StatusInternalServerError, "internal error; the server's log tells why")
	}
	if h.remote && (e == core.ErrMoved || e == core.ErrStopping) {
		e = core.ErrMoved // the first replica tries again where the car goes
		w.Header().Set(movedHeader, "1")
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

func serveMessages(k httpapi.Kind) func(*handler, http.ResponseWriter, *http.Request, url.Values, fleet.CarID) error {
	return func(h *handler, w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error {
		if r.Method == http.MethodPost {
			return h.postMessages(k, w, r, car)
		}
		return h.getMessages(k, w, r, q, car)
	}
}

func (h *handler) getMessages(k httpapi.Kind, w http.ResponseWriter, r *http.Request, q url.Values, car fleet.CarID) error {
	query, err := h.readQuery(w, q)
	if err != nil {
		return err
	}
	limit := time.Duration(0) // the API's timeout
	switch {
	case h.router != nil:
		return h.router.serve(h, w, r, &routedRequest{kind: k, car: car, query: query, key: nameOfKey(r)})
	case h.remote:
		limit = h.remoteWait(r)
		if err := h.awaitLoaded(r.Context(), car, limit); err != nil {
			return err
		}
	}
	messages, err := h.core.Read(r.Context(), k, car, query, limit)
	return answerMessages(w, r, messages, err)
}

func answerMessages(w http.ResponseWriter, r *http.Request, messages []httpapi.Message, err error) error {
	if httpapi.StatusOf(err) == http.StatusNotFound {
		writeJSON(w, r, http.StatusNotFound, "application/json", []httpapi.Message{})
		return nil
	}
	if err != nil {
		return err
	}
	writeJSON(w, r, http.StatusOK, "application/json", messages)
	return nil
}

func (h *handler) postMessages(k httpapi.Kind, w http.ResponseWriter, r *http.Request, car fleet.CarID) error {
	// Only a declared JSON body: a browser sends nothing else across origins
	// without asking first.
	if declared := r.Header.Get("Content-Type"); declared != "" {
		if mediaType, _, err := mime.ParseMediaType(declared); err != nil || !httpapi.IsJSON(mediaType) {
			return httpapi.NewError(http.StatusUnsupportedMediaType, "the Content-Type is %s; expected application/json", httpapi.Quote(declared))
		}
	} else if r.Header.Get("Origin") != "" {
		return httpapi.NewError(http.StatusUnsupportedMediaType, "the Content-Type is missing; expected application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return httpapi.NewError(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, which is the limit; send fewer messages per request", tooLarge.Limit)
		}
		if r.Context().Err() != nil {
			return err
		}
		return httpapi.NewError(http.StatusBadRequest, "the body could not be read to its end")
	}
	switch {
	case h.router != nil:
		return h.router.serve(h, w, r, &routedRequest{kind: k, car: car, post: true, body: body, key: nameOfKey(r)})
	case h.remote:
		if err := h.awaitLoaded(r.Context(), car, h.remoteWait(r)); err != nil {
			return err
		}
	}
	return h.storeMessages(w, r, k, car, body)
}

// storeMessages stores the messages of a body.
func (h *handler) storeMessages(w http.ResponseWriter, r *http.Request, k httpapi.Kind, car fleet.CarID, body []byte) error {
	messages, err := httpapi.DecodeMessages(k, body)
	if err != nil {
		return err
	}
	if err := h.core.Post(r.Context(), k, car, messages); err != nil {
		return err
	}
	// A JSON string: the generated clients of the module libraries fail on any other
	// type (HTTP-5, HTTP-7).
	writeJSON(w, r, http.StatusOK, "application/json", sent(len(messages)))
	return nil
}

// sent is the text that answers a POST.
func sent(messages int) string {
	if messages == 1 {
		return "1 message has been sent."
	}
	return strconv.Itoa(messages) + " messages have been sent."
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
	module, err := parseModule(q)
	if err != nil {
		return err
	}
	modules, err := h.core.AvailableDevices(r.Context(), car, module)
	switch {
	case httpapi.StatusOf(err) == http.StatusNotFound:
		writeJSON(w, r, http.StatusNotFound, "application/json", struct{}{})
	case err != nil:
		return err
	case module != nil: // one object instead of an array (HTTP-9)
		writeJSON(w, r, http.StatusOK, "application/json", modules[0])
	default:
		writeJSON(w, r, http.StatusOK, "application/json", modules)
	}
	return nil
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
