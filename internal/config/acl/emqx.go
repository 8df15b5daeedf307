package acl

import (
	"fmt"
	"strings"
)

const emqxHead = `%% Access rules for EMQX 5, written by "external-server config acl". They replace etc/acl.conf.
%% In emqx.conf:
%%   authorization {no_match = deny, deny_action = ignore,
%%                  sources = [{type = file, enable = true, path = "etc/acl.conf"}]}
%% and, on a listener for the cars alone, a zone with mqtt.use_username_as_clientid = true, so
%% that no car takes over another one's connection.
`

func emqx(f Fleet) string {
	var b strings.Builder
	b.WriteString(emqxHead + "\n%% The server.\n")
	emqxRules(&b, fmt.Sprintf("{user, %q}", f.User), f.server())
	if f.AnyCar {
		b.WriteString("\n%% Any car: its user name is its company and its name, such as " + f.car("car_1") + ".\n")
		emqxRules(&b, "all", gateway("${username}"))
	} else {
		b.WriteString("\n%% Cars.\n")
		for _, car := range f.Cars {
			emqxRules(&b, fmt.Sprintf("{user, %q}", f.car(car)), gateway(f.car(car)))
		}
	}
	b.WriteString("\n{deny, all}.\n")
	return b.String()
}

// emqxRules writes one rule for each kind of access.
func emqxRules(b *strings.Builder, who string, rights []right) {
	for _, action := range []struct {
		access access
		name   string
	}{{read, "subscribe"}, {write, "publish"}} {
		fmt.Fprintf(b, "{allow, %s, %s, [%s]}.\n", who, action.name, quoted(rights, action.access, nil))
	}
}

// quoted lists the topics with one kind of access; change, if any, makes them what the
// broker calls them.
func quoted(rights []right, with access, change func(string) string) string {
	var out []string
	for _, r := range rights {
		if r.access&with == 0 {
			continue
		}
		topic := r.topic
		if change != nil {
			topic = change(topic)
		}
		out = append(out, fmt.Sprintf("%q", topic))
	}
	return strings.Join(out, ", ")
}
