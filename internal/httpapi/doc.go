// Package httpapi is the contract of the Fleet Protocol HTTP API (HTTP-1 to HTTP-19) and
// its client: the interface API with its messages and errors, what a message must be, and
// Client, which speaks it over HTTP.
//
// What serves the API is below this package: core has the cars and the messages, store
// keeps them, server speaks HTTP, keys has the API keys. They import this package; it
// imports none of them. A user of the API takes an API and need not know whether that is a
// Client or the core of the same process.
//
// What a payload means is the business of the modules.
package httpapi
