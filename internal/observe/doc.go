// Package observe remembers and tells what happens to cars: the last values of
// their devices, the ends of their sessions, the event stream, the live tail of
// messages, metrics and traces.
//
// A Hub makes one Car per car, which is that car's observer. Whatever comes in is
// bounded: payloads are cut, lists are rings, and whoever reads a stream too
// slowly loses events, never time of a car.
//
// It may import car and what it collects metrics from; it knows no HTTP.
package observe
