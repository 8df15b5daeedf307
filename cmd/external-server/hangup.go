package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"external-server/internal/app"
	"external-server/internal/app/sdnotify"
)

// catchHangup collects SIGHUP from now on: one that comes while the server starts
// must not end it.
func catchHangup() (hangup chan os.Signal) {
	hangup = make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	return hangup
}

// reloadOnHangup reloads the configuration with every SIGHUP, until the returned
// function is called or ctx ends, and tells the service manager. Errors are logged
// by the server.
func reloadOnHangup(ctx context.Context, hangup chan os.Signal, server *app.App, manager serviceManager) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				manager.tell(sdnotify.Stopping)
				return
			case <-hangup:
				manager.tell(sdnotify.Reloading()...)
				changes, err := server.ReloadFile(context.WithoutCancel(ctx))
				status := "reloaded: " + changes.String()
				if err != nil {
					status = "not reloaded: " + err.Error()
				}
				manager.tell(sdnotify.Ready, sdnotify.Status(status))
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}
