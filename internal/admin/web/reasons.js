// What the reasons of the server mean and what to look at: for somebody who was woken
// up by them.

const sessionEnds = {
  "session timeout": ["The car was silent for too long.", "Look for power, radio coverage and the gateway process in the car."],
  "gateway's connection closed": ["The gateway left the broker and has not come back.", "Look for power and network of the car, and at the gateway process: it ended, or its connection was cut."],
  "missing status timeout": ["A status never came, though later ones did.", "Messages are lost between the car and the broker: look at the radio link and at the broker's queue limits."],
  "command response timeout": ["The car did not answer a command in time, though it said other things.", "The device or its module in the gateway hangs; the page of the car shows its commands."],
  "gateway silent since a command": ["The car went silent while a command was under way.", "Look for power, radio coverage and the gateway process in the car."],
  "broker connection lost": ["The server lost its connection to the broker.", "Look at the broker first; the cars return by themselves."],
  "message could not be sent": ["The server could not hand a message to the broker.", "Look at the broker and its limits."],
  "disconnected by an operator": ["Somebody ended the session on purpose.", "The gateway connects anew by itself within seconds."],
  "gateway started a new session": ["The gateway connected anew while its session was running.", "Normal after a restart of the car; if it repeats, the gateway keeps failing: look at its log."],
  "no connected device left": ["All devices of the car have left.", "Look at the devices in the car: switched off, or cut off from the gateway."],
  "too many statuses ahead of a missing one": ["A status is missing and too many others wait behind it.", "Messages are lost on the way; look at the radio link."],
  "server stopped": ["The server was stopped.", ""],
  "car changed or removed by a reload": ["The configuration of the car was changed.", "If it is still served, its gateway connects anew by itself within seconds."],
  "message missing": ["The gateway began to connect and did not go on.", "Look at the gateway's log: usually it does not hear our answers (rights on the broker, topic, second server)."],
  "connect lists no devices": ["The gateway knows no device.", "Look at the devices in the car and the gateway's configuration of modules."],
  "connect has no session id": ["The gateway sends a connect without session id.", "Its version does not fit the protocol."],
  "connect repeated": ["The gateway began anew in the middle of connecting.", "It did not get our answers in time: look at latency and at its rights on the broker."],
  "first status is not CONNECTING": ["The gateway sent a wrong first status.", "Its version does not fit the protocol."],
  "too many messages before its completion": ["The gateway sends more than the connect sequence allows.", "Its version does not fit the protocol."],
  "connect lists too many devices": ["The gateway lists more devices than are allowed.", "Look at its configuration."],
};

/** explain returns {title, hint} for a car's why. */
export function explain(why) {
  if (!why) return { title: "", hint: "" };
  if (why.startsWith("no connection to the broker")) {
    return { title: "The server has no connection to the broker.", hint: "No car can connect until it is back. Look at the broker, the address and the credentials; the server keeps trying." };
  }
  if (why.startsWith("its gateway has not been heard")) {
    return { title: "Nothing was heard from this car since the server started.", hint: "Is the car switched on, is its gateway running and set to this company, car name and broker?" };
  }
  if (why.startsWith("its gateway sends messages but has not connected")) {
    return { title: "The gateway sends messages, but no connect.", hint: "It may believe in an old session; “re-announce” asks it to begin anew." };
  }
  if (why.startsWith("two gateways")) return { title: "Two gateways use the name of this car.", hint: "Each takes the other's place. Look for a second gateway with this company and car name." };
  if (why.startsWith("another server serves") || why.startsWith("gateway has kept an unknown session")) {
    return { title: "Another server serves this car.", hint: "Look for a second server, or an old one, on the same broker; stop one of the two." };
  }
  if (why.startsWith("gateway begins session after session")) {
    return { title: "The gateway begins session after session.", hint: "Look for a second gateway with this name, then for a second server on this broker, then at the gateway's log." };
  }
  if (why.includes("modules are asked")) return { title: "A module is deciding about the devices.", hint: "If it lasts, look at the queue of the module." };
  if (why.startsWith("connect sequence")) return { title: "The car is connecting.", hint: "This takes seconds; if it lasts, the gateway does not hear the server." };
  const ended = /(?:ended|failed): (?:connect sequence: )?([^;]+)/.exec(why)?.[1]?.trim();
  const known = ended && sessionEnds[ended];
  const again = why.includes("sends messages but has not connected again") ? " It is heard, but does not connect again." : "";
  return known ? { title: known[0] + again, hint: known[1] } : { title: "", hint: "" };
}

/** endMeaning explains the reason of one session's end. */
export const endMeaning = (reason) => sessionEnds[reason.replace(/^connect sequence: /, "")]?.[0] ?? "";

export const stateWords = { running: "connected", connecting: "connecting", waiting: "not connected" };
