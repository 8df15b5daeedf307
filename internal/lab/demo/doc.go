// Package demo shows the server at work to somebody who has nothing installed:
// the server with its embedded parts, and simulated cars that drive. It is used
// by the demo command and by tests, never by the server itself.
//
// It may import app, config, gateway, httpapi, logging, module/check and vehicle.
package demo
