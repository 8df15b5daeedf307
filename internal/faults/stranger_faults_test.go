package faults

func strangerFaults() []scenario { return nil }
