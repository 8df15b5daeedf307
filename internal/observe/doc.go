// Package observe remembers and tells what happens to cars: the last values of
// their devices, the ends of their sessions, the event stream, the live tail of
// messages, metrics and traces.
//
// A Hub makes one Car per car, which is that car's observer. Whatever comes in is
// bounded: payloads are cut, lists are rings, and a reader that is too
// slow loses events. It never costs a car time.
//
// It may import car and what it collects metrics from; it knows no HTTP.
package observe
