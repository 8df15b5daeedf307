// Package settings is what a Session is made with: its limits, and what it may ask about the
// modules of its car. Package session names both as its own.
package settings

import "time"

// Modules is what the core may ask about the modules of its car. Step calls it,
// and Step runs on the goroutine that serves all cars of a connection. So every
// method answers from memory, under no lock that is held while a module is called:
// it must not call a module, ask its process, nor wait for either. What only the
// module knows is asked by effects (EffectDeviceConnected, EffectAskType). The
// answers must not change within one Step.
type Modules interface {
	// Configured tells whether the car has the module (VOC-9).
	Configured(module int32) bool
	// Recall tells whether the module serves the device type (VOC-9), if it has been
	// asked before; known is false otherwise. The number of remembered types must be
	// bounded: they come from the network.
	Recall(module int32, deviceType uint32) (supported, known bool)
	// Room tells how many more statuses the module's queue takes.
	Room(module int32) int
	// Position tells the place of a configured module among the car's modules,
	// in the order of the configuration (SEQ-31).
	Position(module int32) int
	// Awaited tells whether a status of a configured module is answered only when the module
	// has taken it, which EventDelivered says (RES-26).
	Awaited(module int32) bool
}

// Options are the settings of a Session; New replaces zero values by defaults.
type Options struct {
	MessageTimeout   time.Duration // T_msg, default 5 s
	SessionTimeout   time.Duration // T_sess, default 30 s
	AdmissionTimeout time.Duration // how long device_connected may delay an answer (REC-8), default 2 s
	DeliveryTimeout  time.Duration // how long an awaited module may delay an answer (RES-26), default 10 s
	DeliverySoon     time.Duration // the same in the connect sequence and after a recovery, default 3 s
	// TellWithin is how long the broker waits at most to hear that a status was handled whose answer is held, default
	// 250 ms: it may hold back messages of other cars meanwhile.
	TellWithin          time.Duration
	RoomRetry           time.Duration // pause before a full module queue is tried again, default 20 ms
	UnknownSessionPause time.Duration // least pause between answers to unknown sessions, default 10 s
	QuietAfterEnd       time.Duration // no such answer this long after the end of a session, default 5 s
	SendInvalidCommand  bool          // CMD-6
	MaxAhead            int           // statuses held ahead of a gap or of a full queue (DEF-9), default 1000
	MaxAheadBytes       int           // of their contents, and of the messages held in the connect sequence, default 64 MiB
	MaxPending          int           // commands held back per module (REC-13), default 1000
	MaxUnacked          int           // commands per module whose response is awaited, default 1000; see Session.CommandRoom
	MaxCommandBytes     int           // of either of them per module, default 16 MiB
	MaxDevices          int           // devices one Connect may list, default 1000
	// FirstCommand is the counter of the first command, 0 in the protocol (CMD-3).
	FirstCommand uint32
}

// WithDefaults replaces zero values.
func (o Options) WithDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.MessageTimeout, 5*time.Second)
	def(&o.SessionTimeout, 30*time.Second)
	def(&o.AdmissionTimeout, 2*time.Second)
	def(&o.DeliveryTimeout, 10*time.Second)
	def(&o.DeliverySoon, 3*time.Second)
	def(&o.TellWithin, 250*time.Millisecond)
	def(&o.RoomRetry, 20*time.Millisecond)
	def(&o.UnknownSessionPause, 10*time.Second)
	def(&o.QuietAfterEnd, 5*time.Second)
	for _, n := range []*int{&o.MaxAhead, &o.MaxPending, &o.MaxUnacked, &o.MaxDevices} {
		if *n <= 0 {
			*n = 1000
		}
	}
	if o.MaxAheadBytes <= 0 {
		o.MaxAheadBytes = 64 << 20
	}
	if o.MaxCommandBytes <= 0 {
		o.MaxCommandBytes = 16 << 20
	}
	return o
}
