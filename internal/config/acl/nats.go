package acl

import (
	"fmt"
	"strings"
)

const natsHead = `# Users and access rules for NATS, written by "external-server config acl". In nats-server.conf:
#   include "external-server.conf"
# Each $NAME is a variable of the environment of nats-server, or a line NAME: "password" above the
# include; the password may be hashed by "nats server passwd".
`

const natsAny = `# Cars that only "*" of the configuration serves have no user here: NATS makes no rights out of
# user names. Name them with --car.
`

// nats are the users with their rights: its subjects have dots where topics have slashes.
func nats(f Fleet) string {
	var b strings.Builder
	b.WriteString(natsHead)
	if f.AnyCar {
		b.WriteString(natsAny)
	}
	b.WriteString("authorization {\n  users = [\n")
	natsUser(&b, f.User, "EXTERNAL_SERVER_MQTT_PASSWORD", f.server())
	for _, car := range f.Cars {
		natsUser(&b, f.car(car), "PASSWORD_"+car, gateway(f.car(car)))
	}
	b.WriteString("  ]\n}\n")
	return b.String()
}

func natsUser(b *strings.Builder, user, password string, rights []right) {
	fmt.Fprintf(b, "    {\n      user: %q, password: $%s\n      permissions: {\n", user, password)
	fmt.Fprintf(b, "        publish: [%s]\n", quoted(rights, write, subject))
	// The second one carries what a subscription with QoS 1 delivers.
	fmt.Fprintf(b, "        subscribe: [%s, \"$MQTT.sub.>\"]\n      }\n    }\n", quoted(rights, read, subject))
}

var subjects = map[string]string{"+": "*", "#": ">"}

// subject is what NATS calls a topic.
func subject(topic string) string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		if s, ok := subjects[l]; ok {
			levels[i] = s
		}
	}
	return strings.Join(levels, ".")
}
