package gateway

import "strconv"

// Reason says why a gateway ended a connect sequence or a connection, or what the
// server did that the protocol does not allow.
type Reason uint8

// Reasons. The first group ends a connect sequence (GW-20), the second a running
// connection, the third has no consequence for the connection.
const (
	ReasonNone Reason = iota

	ReasonLinkFailed         // the broker was not reached in time (GW-8)
	ReasonNoConnectResponse  // no answer to Connect within GW-1 (GW-13)
	ReasonNotConnectResponse // another message instead of ConnectResponse (GW-13)
	ReasonConnectSession     // ConnectResponse with another session id (GW-13)
	ReasonAlreadyLogged      // ConnectResponse ALREADY_LOGGED (GW-13)
	ReasonNoStatusResponse   // too few answers to the first statuses within GW-1 (GW-15)
	ReasonNotStatusResponse  // another message instead of StatusResponse (GW-15)
	ReasonStatusSession      // StatusResponse with another session id (GW-15)
	ReasonNoCommand          // too few first commands within GW-1 (GW-16)
	ReasonNotCommand         // another message instead of Command (GW-16)

	ReasonForeignCommand     // Command with another session id (GW-30)
	ReasonCommandGap         // Command whose counter is not the next one (GW-31)
	ReasonUnknownResponse    // StatusResponse for a status that is not outstanding (GW-32)
	ReasonNoDevice           // last status answered and no device is connected (GW-33)
	ReasonConnectResponse    // ConnectResponse in normal communication (GW-34)
	ReasonCalled             // ConnectResponse ALREADY_LOGGED in normal communication, which calls it to connect anew (GW-34)
	ReasonUnconfiguredModule // Command for a module the gateway does not have (GW-35)
	ReasonNotified           // disconnect notification (GW-20, GW-40)
	ReasonUnanswered         // status unanswered for GW-2 (GW-42)
	ReasonPublishFailed      // publish while the broker is away (GW-43)
	ReasonRequested          // the owner asked for a reconnect (GW-10)
	ReasonRestarted          // the gateway process was restarted by its owner
	ReasonStopped            // the gateway was stopped by its owner

	ReasonUnparseable          // payload that is not an ExternalServer message, ignored (GW-44)
	ReasonEmptyMessage         // message without a member, ignored in normal communication (GW-44)
	ReasonUnknownFirstResponse // StatusResponse of the connect sequence for no first status; GW-42 follows

	numReasons
)

// Consequences of a Reason.
const (
	violation  = 1 << iota // the server broke the protocol
	reconnects             // a new attempt follows without a device status
)

var reasons = [numReasons]struct {
	text, rule string
	flags      uint8
}{
	ReasonNone:               {"none", "", 0},
	ReasonLinkFailed:         {"broker not reached", "GW-8", 0},
	ReasonNoConnectResponse:  {"no ConnectResponse in time", "GW-13", violation},
	ReasonNotConnectResponse: {"another message instead of ConnectResponse", "GW-13", violation},
	ReasonConnectSession:     {"ConnectResponse of another session", "GW-13", violation},
	ReasonAlreadyLogged:      {"ConnectResponse ALREADY_LOGGED", "GW-13", violation},
	ReasonNoStatusResponse:   {"first status not answered in time", "GW-15", violation},
	ReasonNotStatusResponse:  {"another message instead of StatusResponse", "GW-15", violation},
	ReasonStatusSession:      {"StatusResponse of another session", "GW-15", violation},
	ReasonNoCommand:          {"first command missing", "GW-16", violation},
	ReasonNotCommand:         {"another message instead of a first command", "GW-16", violation},

	ReasonForeignCommand:     {"command of another session", "GW-30", violation | reconnects},
	ReasonCommandGap:         {"command counter is not the next one", "GW-31", violation | reconnects},
	ReasonUnknownResponse:    {"response to a status that is not outstanding", "GW-32", violation},
	ReasonNoDevice:           {"no device connected", "GW-33", 0},
	ReasonConnectResponse:    {"ConnectResponse in normal communication", "GW-34", violation | reconnects},
	ReasonCalled:             {"ConnectResponse ALREADY_LOGGED, the call to connect anew", "GW-34", reconnects},
	ReasonUnconfiguredModule: {"command for a module the gateway does not have", "GW-35", violation | reconnects},
	ReasonNotified:           {"disconnect notification", "GW-40", 0},
	ReasonUnanswered:         {"status not answered in time", "GW-42", violation | reconnects},
	ReasonPublishFailed:      {"publish while the broker is away", "GW-43", 0},
	ReasonRequested:          {"reconnect requested", "GW-10", reconnects},
	ReasonRestarted:          {"gateway restarted", "", reconnects},
	ReasonStopped:            {"gateway stopped", "", 0},

	ReasonUnparseable:          {"unparseable message", "GW-44", violation},
	ReasonEmptyMessage:         {"message without content", "GW-44", violation},
	ReasonUnknownFirstResponse: {"response to no first status", "GW-15", violation},
}

// String returns the reason in plain words.
func (r Reason) String() string {
	if r < numReasons {
		return reasons[r].text
	}
	return "reason " + strconv.Itoa(int(r))
}

// Rule returns the id of the protocol rule behind the reason, or "".
func (r Reason) Rule() string {
	if r < numReasons {
		return reasons[r].rule
	}
	return ""
}

// Meaning explains the reason to a person who does not know the protocol: who did
// what, and what may be behind it. It is "" for ReasonNone.
func (r Reason) Meaning() string {
	if r < numReasons {
		return meanings[r]
	}
	return ""
}

var meanings = [numReasons]string{
	ReasonLinkFailed:         "The car did not reach the MQTT broker. Is it running, and does it accept the car's user and certificate?",
	ReasonNoConnectResponse:  "No server answered the car within 5 s. The server is not running, does not serve this car (any more), or is on another broker.",
	ReasonNotConnectResponse: "The server sent something else before it answered the car's Connect.",
	ReasonConnectSession:     "The server answered with the session id of another Connect. Two servers may serve the car.",
	ReasonAlreadyLogged:      "The server said that the car is connected already. A second car may use the same name.",
	ReasonNoStatusResponse:   "The server accepted the car, but did not answer its first statuses within 5 s.",
	ReasonNotStatusResponse:  "The server sent something else before it answered the car's first statuses.",
	ReasonStatusSession:      "The server answered a first status of another session. Two servers may serve the car.",
	ReasonNoCommand:          "The server did not send each device its first command within 5 s. A module may be slow.",
	ReasonNotCommand:         "The server sent something else where each device gets its first command.",

	ReasonForeignCommand:     "A command of another session arrived. Two servers may serve the car.",
	ReasonCommandGap:         "A command is missing: it was lost on the way, or the server left out a number.",
	ReasonUnknownResponse:    "The server answered a status that the car did not send, or answered one twice.",
	ReasonNoDevice:           "The last device of the car has left. This is no fault.",
	ReasonConnectResponse:    "The server answered a Connect when the car was connected already.",
	ReasonCalled:             "The server does not know the car's session and called the car to connect anew: it was started anew, or the car's modules were changed.",
	ReasonUnconfiguredModule: "The server sent a command for a module that the car does not have.",
	ReasonNotified:           "The server ended the session and told the car: it stops, was asked to by its operator, or missed messages of the car.",
	ReasonUnanswered:         "The server did not answer a status for 30 s. The server or the broker is down, or a module's queue is full.",
	ReasonPublishFailed:      "The car lost the MQTT broker while it sent.",
	ReasonRequested:          "The simulation let the car connect anew.",
	ReasonRestarted:          "The simulation restarted the car's gateway. This is no fault of the server.",
	ReasonStopped:            "The simulation ended.",

	ReasonUnparseable:          "A message arrived that is not one of the protocol. Somebody else may publish on the car's topic.",
	ReasonEmptyMessage:         "A message without content arrived.",
	ReasonUnknownFirstResponse: "The server answered a first status that the car did not send.",
}

// Violation tells whether the reason is the server's fault: a message, or a
// silence, that the protocol does not allow. A lossy or slow network between the
// two makes an innocent server look guilty.
func (r Reason) Violation() bool { return r < numReasons && reasons[r].flags&violation != 0 }

// Reconnects tells whether a connection ended for this reason is followed by a new
// attempt without waiting for a device status.
func (r Reason) Reconnects() bool { return r < numReasons && reasons[r].flags&reconnects != 0 }
