// Package vehicle holds what simulated cars consist of: a driver who follows stops
// through a small town (Autonomy) and a panel with lamps and a button (Panel). Their
// statuses and commands are those of the mission and io modules. Time comes in as an
// argument, so a test drives a car for an hour at once.
//
// It may import nothing of the project.
package vehicle
