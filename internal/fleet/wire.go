package fleet

// Topics of a car: its CarID and one of these (CONN-1 to CONN-3).
const (
	TopicFromGateway = "/module_gateway"
	TopicFromServer  = "/external_server"
	TopicDisconnect  = "/external_server_disconnect"
)

// TopicPresence follows the company in the topic of the server's presence.
const TopicPresence = "/external_server_status"

// What the topics begin with that the server has for itself: each connection whose session
// outlives the process has one (RES-15), and a cluster has its own below its name.
const (
	TopicsOfServer   = "external_server/"
	TopicsOfClusters = "es/"
)

// DefaultPayload is the largest message, in bytes, that links and cars take when they are
// told no other bound. A command of the largest size fits. The configuration tells less
// for what gateways send, unless its "limits" say otherwise.
const DefaultPayload = 4 << 20 // 4 MiB

// ValidName tells whether a company, a car or the role of a device may have the name:
// ^[a-z0-9_]+$ (VOC-1).
func ValidName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}
