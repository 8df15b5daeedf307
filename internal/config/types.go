// Package config reads the four formats of the configuration file (CFG-1)
// into one validated value. It opens nothing but the files it was
// told and the files whose existence it must check.
//
// It may import fleet and module; secrets are values of type Secret, which no
// formatting verb prints.
package config

import (
	"log/slog"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// Format is one of the formats in the wild (CFG-1).
type Format string

// Formats.
const (
	FormatA Format = "A" // single car, v1.x
	FormatB Format = "B" // v2.0.x
	FormatC Format = "C" // v2.1 to v2.2.7
	FormatD Format = "D" // v2.2.8 and later
)

// AnyCarName is the key in "cars" whose modules every car of the company gets
// that is not named itself.
const AnyCarName = "*"

// Config is a validated configuration. It is not changed after Load and
// ApplyFlags.
type Config struct {
	Source         string // path as given
	Format         Format
	Company        string // VOC-1
	Broker         Broker
	EmbeddedBroker *EmbeddedBroker // nil: none
	MessageTimeout time.Duration   // T_msg
	SessionTimeout time.Duration   // T_sess
	// RetryDelay is T_back, the longest pause between attempts to reach the
	// broker (REC-5).
	RetryDelay         time.Duration
	SendInvalidCommand bool  // CMD-6
	Cars               []Car // in file order, without AnyCar
	AnyCar             *Car  // "*": nil when only named cars are served
	Logging            Logging
	Limits             Limits
	HTTPAPI            *HTTPAPI // embedded Fleet Protocol HTTP API, nil: off
	Admin              *Admin   // nil: off
	Tracing            *Tracing // nil: off
	Cluster            *Cluster // several servers share the cars; nil: this one has them all
	// StateDirectory lets sessions outlive the process; empty: they end with it.
	StateDirectory string
	StateSync      bool   // the disk is waited for before an answer leaves
	OnStop         OnStop // what SIGTERM means with a state directory
	// Presence publishes retained "online"/"offline" on
	// <company>/external_server_status.
	Presence bool

	defaultPort bool // Broker.Port was not configured
	places      map[string]place
}

// OnStop says what a stop means for the cars.
type OnStop string

// Values of OnStop.
const (
	OnStopSuspend OnStop = "suspend" // the next process goes on; no gateway is told
	OnStopNotify  OnStop = "notify"  // sessions end, gateways are told
)

// Broker is the connection to the MQTT broker.
type Broker struct {
	Host        string // empty: the embedded one
	Port        int
	Username    string
	Password    Secret
	TLS         *TLS   // nil: none
	Connections int    // shared connections; 0: chosen from the number of cars
	ClientID    string // of the connections, "-" and their number follow; empty: chosen

	files TLS // configured, also while TLS is nil; --tls uses them
}

// TLS names the files of a client side connection (CONN-31).
type TLS struct {
	CAFile   string // empty: the system's
	CertFile string // empty: no client certificate
	KeyFile  string
}

// ServerTLS names the files of a listener.
type ServerTLS struct {
	CertFile     string
	KeyFile      string
	ClientCAFile string // set: clients must present a certificate it signed
}

// EmbeddedBroker is the MQTT broker inside the process.
type EmbeddedBroker struct {
	Listen string // host:port
	TLS    *ServerTLS
	Users  []User // empty: anybody
	// Insecure allows to listen beyond loopback without users or client certificates.
	Insecure bool
}

// User may connect to the embedded broker.
type User struct {
	Name     string
	Password Secret
	Car      string // the only car whose gateway the user may be; empty: no restriction
}

// Car is one car and its modules in the order of CFG-13: specific ones first,
// then common ones.
type Car struct {
	Name    string
	Modules []Module
	// Labels are for people: lists of cars are filtered by them. In the order of the file.
	Labels []Label
}

// Label is a name and a value that an operator has given to a car, such as depot and brno.
type Label struct{ Name, Value string }

// Builtin names a module that is part of the server.
type Builtin string

// Built-in modules and their numbers: 1, 2, 3.
const (
	BuiltinMission     Builtin = "mission"
	BuiltinIO          Builtin = "io"
	BuiltinTransparent Builtin = "transparent"
)

// Isolation says where a shared library runs.
type Isolation string

// Isolations of a shared library.
const (
	IsolationProcess Isolation = "process" // a child process, the default
	IsolationNone    Isolation = "none"    // in the server's process
)

// Answer says when a status of a module is answered.
type Answer string

// Answers.
const (
	AnswerQueued    Answer = "queued"    // when its queue has taken the status, the default
	AnswerDelivered Answer = "delivered" // when the module has taken it (RES-26)
)

// Module is one module of a car. Exactly one of LibPath, Builtin and Command is
// set.
type Module struct {
	Number    int32
	KeyPath   string // such as common_modules.1, for error texts
	LibPath   string
	Isolation Isolation // of LibPath
	Builtin   Builtin
	Command   []string // executable and arguments
	Answer    Answer
	// Config holds the module's own pairs in file order (MOD-8, MOD-9).
	Config      []Pair
	PollTimeout time.Duration // T_poll, MOD-16
	// SpoolDirectory keeps the queue of a built-in module across restarts;
	// empty: in memory only.
	SpoolDirectory string
	spoolDefault   bool          // it follows from StateDirectory
	SpoolMaxBytes  int64         // per car and module
	MemoryLimit    int64         // of the child process, bytes; 0: none
	MaxRestarts    int           // of the child process before it is taken out of service; 0: never
	CallTimeout    time.Duration // how long one call may take before the child process is replaced
}

// Pair is one pair of a module's own configuration. Any value may be secret
// (DEF-45).
type Pair struct {
	Key   string
	Value Secret
}

// Origin names what the module is made from: the library, the program or the
// built-in module.
func (m Module) Origin() string {
	switch {
	case m.Builtin != "":
		return "built-in " + string(m.Builtin)
	case len(m.Command) > 0:
		return m.Command[0]
	}
	return m.LibPath
}

// Spec returns what the context of one car is made from: company_name and
// car_name first, unless the module's own config replaces them in place (MOD-8).
func (m Module) Spec(car fleet.CarID) module.InstanceSpec {
	pairs := make([]module.Pair, 2, 2+len(m.Config))
	pairs[0] = module.Pair{Key: "company_name", Value: car.Company}
	pairs[1] = module.Pair{Key: "car_name", Value: car.Car}
	for _, p := range m.Config {
		value := p.Value.Reveal()
		switch p.Key {
		case pairs[0].Key:
			pairs[0].Value = value
		case pairs[1].Key:
			pairs[1].Value = value
		default:
			pairs = append(pairs, module.Pair{Key: p.Key, Value: value})
		}
	}
	return module.InstanceSpec{Car: car, Config: pairs, PollTimeout: m.PollTimeout}
}

// Logging holds the two sinks of LOG-1.
type Logging struct {
	Console Sink
	File    Sink
}

// Sink is one destination of log lines.
type Sink struct {
	Use      bool
	Level    slog.Level
	Format   string // "text" (LOG-2) or "json"
	Path     string // directory of the file sink; "" is the working directory
	MaxBytes int64  // size at which the file is rotated; 0: never
	Keep     int    // old files kept
}

// Limits bound what one car or module may use (REC-22).
type Limits struct {
	StatusesAhead    int           // statuses held ahead of a gap
	ModuleQueue      int           // statuses that wait for one module
	Stop             time.Duration // for the whole stop
	Payload          int           // bytes of one message of a gateway
	MessagesPerSec   int           // of one car; 0: unlimited
	MessageBurst     int           // above that rate; 0: twice the rate
	IdleCar          time.Duration // a car found by "*" is released after this time without message
	AnyCars          int           // most cars served by "*" at a time
	AdmissionTimeout time.Duration // REC-8
}

// HTTPAPI is the embedded Fleet Protocol HTTP API.
type HTTPAPI struct {
	Listen      string
	TLS         *ServerTLS
	Store       Secret        // "sqlite:PATH" or "postgres://…"
	KeysFile    string        // hashed API keys; empty: no key is needed on loopback only
	Retention   time.Duration // how long messages are kept
	WaitTimeout time.Duration // of requests with wait=true
	MaxCars     int           // cars known at a time (REC-22)
}

// Admin is the operator's endpoint.
type Admin struct {
	Listen        string
	TLS           *ServerTLS
	Tokens        []Token
	PerCarMetrics bool
	// Insecure allows requests without token beyond loopback.
	Insecure bool
	// MapTiles is the URL of a tile of the dashboard's map, with {z}, {x} and {y}; empty:
	// none are shown.
	MapTiles       string
	MapAttribution string // shown on the map with tiles; their licence may ask for it
	MapMaxZoom     int    // the largest {z} that there are tiles of
}

// Role of a token.
type Role string

// Roles.
const (
	RoleRead    Role = "read"
	RoleOperate Role = "operate"
)

// Token is a bearer token of the admin endpoint.
type Token struct {
	Name  string
	Role  Role
	Token Secret
	// TokenFile is the file that Token was read from, empty if there is none.
	TokenFile string
}

// Tracing is the export of traces by OTLP over HTTP.
type Tracing struct {
	Endpoint    string // URL
	SampleRatio float64
}
