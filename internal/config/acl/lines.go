package acl

import (
	"fmt"
	"strings"
)

const mosquittoHead = `# Access rules for mosquitto, written by "external-server config acl".
# In mosquitto.conf:
#   allow_anonymous false
#   password_file /etc/mosquitto/passwd
#   acl_file /etc/mosquitto/acl
# and, on a listener for the cars alone, so that no car takes over another one's connection:
#   use_username_as_clientid true
`

const vernemqHead = `# Access rules for VerneMQ, written by "external-server config acl". They replace etc/vmq.acl,
# which lets everybody use every topic. In vernemq.conf:
#   allow_anonymous = off
#   plugins.vmq_passwd = on
#   plugins.vmq_acl = on
#   vmq_acl.acl_file = /etc/vernemq/vmq.acl
`

// lines are the rules in the notation of mosquitto that VerneMQ reads, too: a topic
// without verb may be read and written.
func lines(f Fleet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n# The server.\nuser %s\n", f.User)
	writeLines(&b, "topic", f.server())
	if f.AnyCar {
		b.WriteString("\n# Any car: its user name is its company and its name, such as " + f.car("car_1") + ".\n")
		writeLines(&b, "pattern", gateway("%u"))
		return b.String()
	}
	for _, car := range f.Cars {
		fmt.Fprintf(&b, "\nuser %s\n", f.car(car))
		writeLines(&b, "topic", gateway(f.car(car)))
	}
	return b.String()
}

func writeLines(b *strings.Builder, kind string, rights []right) {
	for _, r := range rights {
		verb := map[access]string{read: " read", write: " write", both: ""}[r.access]
		fmt.Fprintf(b, "%s%s %s\n", kind, verb, r.topic)
	}
}
