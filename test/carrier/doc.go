// Package carrier compares the two ways in which a server of a cluster could leave the records of
// its sessions for the next one: keys in etcd that are written under the condition that the
// shard is still its own, or messages that the broker retains, written over the connection of the
// shard. docs/architecture.md has the figures, and why it is the second.
package carrier
