package module

// Bounds that more than one package keeps.
const (
	// DefaultQueue is how many statuses may wait for a module, unless configured.
	DefaultQueue = 1000
	// MaxRecalled bounds the answers about device types that a module remembers (see
	// Recaller): the types come from the network, and there are 2^32 of them.
	MaxRecalled = 4096
)
