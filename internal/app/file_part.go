package app

import (
	"context"
	"os"
	"time"

	"external-server/internal/config"
)

// filePause is how often the configuration file is looked at.
const filePause = 2 * time.Second

// filePart looks at the configuration file, and tells when it was changed in such a way
// that a reload or the next start would fail: long before somebody needs one.
type filePart struct {
	a     *App
	looks *task
}

func (*filePart) keys() []string { return nil }
func (p *filePart) stop() error  { return p.looks.stop() }

func (p *filePart) prepare(_ context.Context, old, fresh *config.Config) (change, error) {
	if old != nil || p.a.load == nil || fresh.Source == "" {
		return change{}, nil
	}
	return change{apply: func(ctx context.Context) error {
		p.looks = begin(ctx, func(ctx context.Context) error {
			p.watch(ctx, fresh.Source)
			return nil
		})
		return nil
	}}, nil
}

// watch looks at the file until ctx ends.
func (p *filePart) watch(ctx context.Context, path string) {
	tick := time.NewTicker(filePause)
	defer tick.Stop()
	read, _ := os.Stat(path) // what was read; nil: it is not there
	var changed os.FileInfo  // and not looked at yet
	for broken := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, _ := os.Stat(path)
		switch {
		case sameFile(now, read):
			changed = nil
			continue
		case now != nil && !sameFile(now, changed):
			changed = now // it may be half written: once more
			continue
		}
		read, changed = now, nil
		broken = p.look(path, broken)
	}
}

// look reads the file and tells what is new; broken says how it was before.
func (p *filePart) look(path string, before bool) (broken bool) {
	_, _, err := p.a.load()
	switch {
	case err != nil:
		p.a.log.Warn("the configuration file has an error; what is in force stays, the next reload or start will fail", "file", path, "error", err)
		if p.a.hub != nil {
			p.a.hub.FileBroken(err)
		}
	case before:
		p.a.log.Info("the configuration file has no error any more; a reload puts it in force", "file", path)
	}
	return err != nil
}

// sameFile tells whether a file was not changed, as far as can be seen without reading it.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
