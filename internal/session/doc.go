// Package session is the core of the server: the protocol of one car as a state
// machine. It has no socket, no clock, no goroutine and no log. Its caller has all of
// these, and performs what a Session decides.
//
// The rules of the protocol are decided here and nowhere else. docs/protocol.md
// defines them; each decision in the code names its rule id. The scripts in testdata
// are the readable specification: what comes in, what goes out, in order. Package car
// is the caller of the real server.
//
// # Usage
//
// Make a Session for each car with New. It waits for a Connect, without time limit. From
// then on the caller does four things, always on one goroutine at a time:
//
//  1. It turns what happens into an Event and calls Step with the present time.
//  2. It takes the record of the Step from Journal, if the session is Durable, and
//     appends it to the journal.
//  3. It performs the Effects that Step returned, one after the other, all of them.
//  4. It asks Deadline and arms one timer for that time.
//
// The example shows Events and Effects. The loop around them waits for messages, for answers of modules and
// for the timer that Deadline has armed, whichever comes first.
//
// # Step
//
// Step never blocks and must not be called by two goroutines at the same time. The
// slice that it returns is valid until the next Step; the caller performs every Effect
// of it before it calls Step again. What the Effects refer to, Data for instance,
// belongs to the caller and is not changed later.
//
// Time comes from the argument alone. It must not run backwards. It need not be wall
// time: tests and the simulation use times of their own.
//
// A session that is not needed any more is simply dropped. It owns nothing that has to be
// closed. To end it in order, give it EventStop first and perform the effects.
//
// # Events
//
// What the transport brings:
//
//   - EventMessage: one message of the gateway, in the order of arrival. A payload that
//     cannot be decoded is no event (CONN-32). Redelivered is the transport's own mark.
//   - EventLinkUp: the car's topic is subscribed. Kept says that the broker has held what
//     came meanwhile; then EventBacklogRead must follow when the last held message was
//     given to Step. Down is how long the car was out of reach. Withhold says that the
//     owner leaves without acknowledgement what Withheld names.
//   - EventBacklogSlow: nothing more comes, although EventBacklogRead was not given: the
//     owner is going to acknowledge what was withheld.
//   - EventLinkDown: the connection is lost, and with it all that was queued. Kept says that
//     the broker may hold what comes; the session is then suspended instead of ended
//     (RES-5). Settled says that the broker has acknowledged everything that was sent.
//   - EventBacklogRead: see EventLinkUp.
//   - EventPublishFailed: the transport has not taken a message of the last Effects. The
//     caller performs the other Effects first, then reports it once (CONN-29).
//   - EventGatewayGone: the broker says that the gateway's connection has been closed for
//     some time. The session ends without a notification, because nothing would hear it.
//
// What modules bring:
//
//   - EventAdmission: the answer to EffectDeviceConnected or EffectAskType, with its Ticket.
//     Exactly one for each, however late. A Ticket of a session that has ended is ignored,
//     so the caller need not remember which are still wanted.
//   - EventCommands: what one module has fetched, in order, and the Position behind it. Ask
//     CommandRoom first and leave the rest where it is (REC-22). Report also an empty
//     batch that moves the Position.
//   - EventDelivered: a module for which Modules.Awaited is true was handed its statuses up to the Number of their
//     EffectForward, whatever it has answered. Do not report to a session what an earlier one has forwarded.
//
// What the clock and operators bring:
//
//   - EventDeadline: the time that Deadline returned has come. An early or needless one does
//     no harm: every limit is looked at again (DEF-27).
//   - EventStop, EventReload: the session ends and its gateway is told. EventStop means the
//     whole server, EventReload this car; they differ in the Reason only.
//   - EventDisconnect: an operator ends the session. EventReannounce: an operator wants the
//     gateway to connect anew; the session goes on until it does.
//   - EventUnbind, EventRebind: the modules, or their contexts, are exchanged under the
//     session (RES-18). Between the two the caller calls UseModules if the modules are
//     others, and gives the session no other event. Greeted says that the next message is a
//     Connect, so that the gateway need not be called to connect anew.
//   - EventResume: what a journal says of the car. It must be the first event of a Session.
//
// # Effects
//
// The order of the Effects is part of the protocol. A caller may hand an Effect to a
// queue instead of waiting for it, if that queue keeps the order: one queue to the
// gateway, and one to each module.
//
// To the gateway:
//
//   - EffectPublish: send Message behind everything that was sent before. If there is no
//     room, report EventPublishFailed.
//   - EffectNotifyDisconnect: send the notification (CONN-3). Whether it could be sent does
//     not matter to the session.
//   - EffectAnswerLater, EffectHandled: see "Held answers".
//   - EffectDiscardOutgoing: forget messages that wait and have not been handed to the broker
//     (DEF-20). Notifications stay.
//
// To the module of Device, in this order for each module (REC-8), with priority 0 (MOD-11):
//
//   - EffectDeviceConnected: ask whether it serves the type, unless Recall knows; then call
//     device_connected; report EventAdmission. First means that commands fetched before
//     are stale and are to be forgotten (DEV-3).
//   - EffectForward: call forward_status with Data, then forward_error_message with Error if that is
//     not empty. This is a promise: the answer to the gateway follows it in the same slice or is held,
//     and Room said that there is room. With Again there need not be room.
//   - EffectDeviceDisconnected: call device_disconnected. It closes one EffectDeviceConnected
//     that was not refused.
//   - EffectAck: call command_ack of Module with Command.
//   - EffectAskType: ask whether the module serves the type; report EventAdmission. It need
//     not keep the order. A later one for the same module replaces it.
//
// For people:
//
//   - EffectSessionStarted, EffectSessionRunning, EffectSessionResumed, EffectSessionEnded: the
//     life of a session. Each started session ends exactly once, with a Reason.
//   - EffectNote: worth a log line and a count. With Quiet those of level Debug are left out.
//
// # Modules
//
// Step asks the Modules that New was given, and Step runs on the goroutine that reads the
// messages of all cars of a connection. So each method of Modules answers from memory. It must not
//
//   - call a module, or ask its process;
//   - wait, or take a lock that is held while a module is called;
//   - change its answer within one Step;
//   - call the Session.
//
// Recall returns known = false for a type that its module has not been asked about. The
// session then asks with an Effect, and the status waits for the answer, 2 s at most
// (Options.AdmissionTimeout).
//
// # Held answers
//
// A status of an awaited module is answered when the module has taken it (RES-26). If the transport has to be told
// that a message was handled, the caller does so with the answer, in the same write. EffectAnswerLater says that the
// answer to the message of this Step comes in a later one, so what tells the transport is kept until an EffectPublish
// has the answer, or EffectHandled says that it is time. After EventLinkDown what was kept means nothing.
//
// # Deadline
//
// Deadline is one time for everything: limits of the connect sequence, the session
// timer, a missing status, a command without response, a slow module, a full queue. Zero
// means that there is none. It changes with almost every Step, mostly into the future. So a
// caller does better not to move a timer that is armed for an earlier time: it fires, EventDeadline finds
// nothing due, and the timer is set again.
//
// # The journal
//
// A session that shall go on in another process is made Durable before its first event.
// Then three things hold:
//
//   - The record of a Step is appended before its Effects are performed, and written before
//     anything that they cause leaves the process (RES-2). One write may serve many Steps.
//   - When a module has confirmed a status, the caller appends AppendDelivered with the
//     Number of its EffectForward.
//   - When a journal begins anew, AppendRecord gives each session as a whole.
//
// The next process applies all records to a Fold, makes a Session with New and Durable, and
// gives it the Resumption of its car with EventResume. The session then sends nothing to its
// gateway until it has heard a message of it (RES-8).
//
// # Bounds
//
// Everything that a Session holds is bounded by its Options (REC-22); Load tells how much
// it is. What a module hands over beyond CommandRoom costs the oldest of its commands.
//
// # Where a rule is
//
// Step leads to everything: message in session.go for the gateway, handle there for the rest. What only keeps
// things in order and within bounds is in the folder of this package: order (statuses), commands, owed
// (held answers), contention (two gateways, two servers) and record (what outlives the process).
//
// # Imports
//
// The package and those in its folder import fleet and nothing that does I/O; a test makes sure of that.
package session
