package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"external-server/internal/app"
)

// reloadOnHangup reloads the configuration with every SIGHUP, until the returned
// function is called. Errors are logged by the server.
func reloadOnHangup(ctx context.Context, server *app.App) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
				_, _ = server.ReloadFile(context.WithoutCancel(ctx))
			}
		}
	})
	return func() {
		signal.Stop(hangup)
		cancel()
		done.Wait()
	}
}
