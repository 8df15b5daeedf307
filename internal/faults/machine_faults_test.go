package faults

func machineFaults() []scenario { return nil }
