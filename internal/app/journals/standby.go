package journals

import (
	"context"
	"errors"
	"fmt"

	"external-server/internal/config"
	"external-server/internal/state"
)

// wait opens the state directory, when the process that has it has ended.
func (j *Journals) wait(ctx context.Context, cfg *config.Config) (*state.Dir, error) {
	late := fmt.Errorf("another process, which does not do its work, has had it for %v", standbyTimeout)
	told := false
	for tries := 0; ; tries++ {
		bound, cancel := context.WithTimeoutCause(ctx, standbyTimeout, late)
		dir, err := state.Open(bound, state.Options{
			Dir: cfg.StateDirectory, Shards: shardsOf(cfg), Version: j.opts.Version, Logger: j.opts.Logger,
			Waiting: func(holder string) {
				if !told {
					j.opts.Logger.Warn("the state directory is in use: waiting for that process to end; this server serves no car meanwhile", "directory", cfg.StateDirectory, "holder", holder)
				}
				told = true
			},
		})
		cancel()
		if err == nil || !errors.Is(err, late) || !state.AtWork(ctx, cfg.StateDirectory) {
			return dir, err
		}
		if tries%10 != 0 { // a line in five minutes
			continue
		}
		j.opts.Logger.Warn("the process that has the state directory is at work, and this server goes on waiting: two servers must not serve the same cars. Stop one of them, or give this one a state directory and cars of its own",
			"directory", cfg.StateDirectory, "error", err)
	}
}

// shardsOf is the number of shards, which is fixed in the directory.
func shardsOf(cfg *config.Config) int {
	if cfg.Cluster != nil {
		return cfg.Cluster.Shards
	}
	return shardCount
}
