package fleetapi

// CheckCommand tells whether a built-in module takes the data of a command, and what it
// hands to the car of it (MM-25 to MM-27, MM-34 to MM-36, MM-42). builtin is Mission, IO or
// Transparent.
func CheckCommand(builtin string, data []byte) ([]byte, error) {
	k, err := kindOf(builtin)
	if err != nil {
		return nil, err
	}
	v, err := parse(data)
	if err != nil {
		return nil, err
	}
	return k.command(v)
}
