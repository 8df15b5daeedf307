package boundary

import pb "github.com/fleet-protocol/external-server/sdk/module/moduleproto"

// Commands takes what one Poll has to give. A command that no car can be sent is
// dropped and reported to the server (moduleproto.CommandFault). It belongs to the
// Poll that it was made for, and is not for concurrent use.
type Commands struct {
	conn    *Conn
	id      uint64 // of the request
	list    []*pb.Command
	dropped uint32
	reason  string // of the first one
	sent    bool   // Now was called with a usable one
}

// Add adds a command to the answer. The command belongs to the answer from now on.
func (c *Commands) Add(command *pb.Command) {
	if c.usable(command) {
		c.list = append(c.list, command)
	}
}

// Now sends a command before the answer. It reaches the server even if this process
// ends in the next moment.
func (c *Commands) Now(command *pb.Command) {
	if c.usable(command) {
		c.sent = true
		c.send(&pb.ModuleFrame{Kind: &pb.ModuleFrame_Command{Command: command}})
	}
}

// Fetching tells the server that commands are being taken out of the module from
// now on: what is lost if the process ends meanwhile cannot be repeated.
func (c *Commands) Fetching() {
	c.send(&pb.ModuleFrame{Kind: &pb.ModuleFrame_Fetching{Fetching: &pb.Fetching{}}})
}

// Dropped reports commands that the caller has dropped itself, with the reason of the
// first one.
func (c *Commands) Dropped(commands int, reason string) {
	if c.dropped == 0 {
		c.reason = reason
	}
	c.dropped += uint32(commands)
}

// any tells whether there is anything to answer.
func (c *Commands) any() bool { return len(c.list) > 0 || c.sent || c.dropped > 0 }

func (c *Commands) usable(command *pb.Command) bool {
	fault := pb.CommandFault(command.GetData(), command.GetDevice().GetRole(), command.GetDevice().GetName())
	if fault != "" {
		c.Dropped(1, fault)
	}
	return fault == ""
}

func (c *Commands) send(frame *pb.ModuleFrame) {
	frame.Id = c.id
	_ = c.conn.SendNow(frame) // a broken connection ends Serve
}
