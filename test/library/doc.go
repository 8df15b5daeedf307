// Package library sets the MQTT client library that other projects use against our own packets,
// broker and link: what they disagree about shows here.
package library
