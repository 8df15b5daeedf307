package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"external-server/internal/fleet"
)

// BasePath is the path below which the API lives; what module configurations
// call api_url ends with it (HTTP-1).
const BasePath = "/v2/protocol"

// CarPath returns the path of a route for a car, below BasePath. Routes begin with "/".
func CarPath(route string, car fleet.CarID) string {
	return route + "/" + url.PathEscape(car.Company) + "/" + url.PathEscape(car.Car)
}

// IsJSON tells media types that are JSON: application/json and those with the suffix
// +json, such as application/vnd.api+json. A browser sends none of them across origins
// without asking first.
func IsJSON(mediaType string) bool {
	return mediaType == "application/json" || strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")
}

// Kind separates what /status carries from what /command carries. The numbers
// are stored.
type Kind int

// The kinds of messages.
const (
	KindStatus  Kind = 0
	KindCommand Kind = 1
)

// String returns the name of the kind, which is that of its route.
func (k Kind) String() string {
	if k == KindCommand {
		return "command"
	}
	return "status"
}

// Message types of a payload. STATUS and STATUS_ERROR travel by /status,
// COMMAND by /command.
const (
	TypeStatus      = "STATUS"
	TypeStatusError = "STATUS_ERROR"
	TypeCommand     = "COMMAND"
)

// Encodings of a payload. The API stores and returns data as it came, whatever
// the encoding says (MM-13).
const (
	EncodingJSON   = "JSON"
	EncodingBase64 = "BASE64"
)

// Message is one message of the API. The members are in alphabetical order,
// which is how the module libraries write them (MM-1).
type Message struct {
	DeviceID DeviceID `json:"device_id"`
	Payload  Payload  `json:"payload"`
	// Timestamp is in milliseconds since 1970 in what the API returns. In what
	// is posted it is ignored: the API's clock decides (HTTP-10).
	Timestamp int64 `json:"timestamp"`
}

// DeviceID names a device to the API. Identity is module, type and role
// (HTTP-17); the name is kept as it was posted.
type DeviceID struct {
	ModuleID int64  `json:"module_id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Type     int64  `json:"type"`
}

// DeviceKey is the identity of a device (HTTP-17).
type DeviceKey struct {
	Module int64
	Type   int64
	Role   string
}

// Key returns the identity of the device.
func (d DeviceID) Key() DeviceKey { return DeviceKey{d.ModuleID, d.Type, d.Role} }

// Payload is the content of a message. Data is one JSON object, array or string;
// its bytes must not be changed after the message was handed over. The client returns
// a message without device or data with nil Data (MM-14): skip it, but let its
// timestamp move the cursor.
type Payload struct {
	Data        json.RawMessage `json:"data"`
	Encoding    string          `json:"encoding"`
	MessageType string          `json:"message_type"`
}

// Car is one entry of the answer to /cars.
type Car struct {
	CarName     string `json:"car_name"`
	CompanyName string `json:"company_name"`
}

// Module is one entry of the answer to /available-devices.
type Module struct {
	DeviceList []DeviceID `json:"device_list"`
	ModuleID   int64      `json:"module_id"`
}

// Query are the parameters of a reading request.
type Query struct {
	Since int64 // ms since 1970, inclusive
	// Wait holds a request that has nothing to return until something is posted
	// or the API's timeout (5 s by default) is over.
	Wait bool
}

// Values returns the query of a request: since always and wait only when it is true (MM-4).
func (q Query) Values() url.Values {
	values := url.Values{"since": {strconv.FormatInt(q.Since, 10)}}
	if q.Wait {
		values.Set("wait", "true")
	}
	return values
}

// API is the Fleet Protocol HTTP API as its users see it. The HTTP client and
// the embedded server's core implement it, so that a user in the same process
// needs no network. All methods may be called from many goroutines.
//
// Errors that the API itself answers with are of type *Error, also from the
// embedded one: StatusOf returns their code. Every other error means that there
// was no answer; a post that ends so may or may not have been stored.
type API interface {
	// PostStatuses stores statuses and status errors of one car in array order
	// under one timestamp and returns when they are stored (HTTP-7, HTTP-15).
	PostStatuses(ctx context.Context, car fleet.CarID, messages []Message) error
	// PostCommands stores commands of one car (HTTP-5, HTTP-14).
	PostCommands(ctx context.Context, car fleet.CarID, messages []Message) error
	// Statuses returns the statuses of a car in ascending order of time. A car
	// without any is *Error 404, and so is a wait in vain (HTTP-13).
	Statuses(ctx context.Context, car fleet.CarID, q Query) ([]Message, error)
	// Commands returns the commands of a car, of all modules. An unknown car is
	// *Error 404 unless commands came while waiting (HTTP-11, HTTP-12).
	Commands(ctx context.Context, car fleet.CarID, q Query) ([]Message, error)
	// PollCommands is Commands with wait=true without a goroutine of the caller, and
	// may wait longer:
	// it returns at once and done is called exactly once, later, from another
	// goroutine, with what Commands would return. done must not block; it may
	// start the next poll. stop gives the poll up and is safe to call at any
	// time: it reports whether it was in time, in which case done is never
	// called.
	PollCommands(car fleet.CarID, since int64, done func([]Message, error)) (stop func() bool)
	// Cars returns the known cars of all companies that became known at or after
	// since (HTTP-8).
	Cars(ctx context.Context, q Query) ([]Car, error)
	// AvailableDevices returns the known devices of a car by module, in ascending
	// order of the number. module nil means all. An unknown car or module is
	// *Error 404 (HTTP-9).
	AvailableDevices(ctx context.Context, car fleet.CarID, module *int64) ([]Module, error)
}

// Error is an answer of the API other than success. Its JSON form is the body of
// such an answer.
type Error struct {
	Detail string `json:"detail"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	Type   string `json:"type"` // always "about:blank"
}

// Error returns "404 Not Found: detail".
func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("%d %s", e.Status, e.Title)
	}
	return fmt.Sprintf("%d %s: %s", e.Status, e.Title, e.Detail)
}

// StatusOf returns the HTTP status code of an *Error in err, 0 if there is none:
// err is nil or no answer came.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// NewError returns an answer with a status code and a text for people.
func NewError(status int, format string, args ...any) *Error {
	return &Error{Status: status, Title: http.StatusText(status), Type: "about:blank", Detail: fmt.Sprintf(format, args...)}
}
