// Package alerts says which alerts are on, from the readings of one server: the rules of
// deploy/prometheus/alerts.yml that one server can judge by itself, with the same names,
// thresholds and times. A test plays both side by side.
//
// It reads no clock: the time is that of the last reading.
package alerts
