// Package web tests the dashboard as its users have it: the real server with
// gateways over its embedded broker, looked at by a real browser (Debian's
// chromium). Pictures of what the tests saw are left under artifacts/dashboard.
//
// It holds tests only.
package web
