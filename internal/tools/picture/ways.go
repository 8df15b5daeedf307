package main

// step is one step on a way: a function and what it does there.
type step struct {
	pkg, function, does string
}

// way is the way of one message. A step without package is outside the server.
type way struct {
	title string
	steps []step
}

// ways are the two ways that a newcomer should follow first.
func ways() []way {
	return []way{
		{"ONE STATUS", []step{
			{"", "", "the gateway in the car publishes it to COMPANY/CAR/module_gateway"},
			{"link/mqtt", "conn.deliver", "finds the car of the topic"},
			{"car", "Seat.Message", "handles it at once, or puts it into the car's mailbox"},
			{"car", "occupant.handle", "turns it into an event"},
			{"protocol", "Decoder.Client", "makes a fleet.ClientMessage of the bytes"},
			{"car", "occupant.step", "gives the event to the session, its record to the journal"},
			{"session", "Session.Step", "decides by the rules; returns effects, in order"},
			{"car", "occupant.perform", "performs them: the module first, then the answer"},
			{"module", "Worker.QueueStatus", "takes the status into the bounded queue of (car, module)"},
			{"car", "occupant.perform", "the StatusResponse, in the same loop"},
			{"protocol", "EncodeServer", "makes bytes of it"},
			{"car", "occupant.perform", "gives them to the car's port"},
			{"link/mqtt", "port.Publish", "queues them behind what the car was sent before"},
			{"link/mqtt", "conn.endBatch", "one write for all that was read together; then Sent"},
			{"", "", "the gateway has its answer. Only now the module is called"},
			{"car", "Seat.Sent", "wakes the workers that have something to do"},
			{"module", "Worker.Begin", "hands it over, and what else the module is ready for"},
			{"module/host", "instance.Forward", "passes it to the module's own process, with others, within a millisecond"},
			{"", "", "forward_status of the module. Others: Worker.makeCalls, module/cabi in the process, module/fleetapi built in"},
		}},
		{"ONE COMMAND", []step{
			{"", "", "wait_for_command of the module returns"},
			{"module/host", "instance.WaitCommands", "reads what the module's process has sent"},
			{"module", "Worker.pollCommands", "keeps it in a bounded inbox and tells the car"},
			{"car", "occupant.fetch", "takes as much as the session has room for"},
			{"session", "Session.Step", "gives it the next counter and a limit of T_msg"},
			{"car", "occupant.perform", "performs the effect"},
			{"protocol", "EncodeServer", "makes bytes of it"},
			{"car", "occupant.perform", "gives them to the car's port"},
			{"link/mqtt", "port.Publish", "queues them; the writer of the connection sends"},
			{"", "", "the gateway answers with a CommandResponse, which comes as a status does"},
			{"car", "occupant.step", "gives it to the session"},
			{"session", "Session.commandResponse", "finds the command by its counter"},
			{"car", "occupant.perform", "performs the acknowledgement"},
			{"module", "Worker.CommandAck", "queues it behind the calls that wait"},
			{"module/host", "instance.CommandAck", "passes it to the module's own process"},
			{"", "", "command_ack of the module"},
		}},
	}
}
