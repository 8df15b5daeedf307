package bench

import (
	"context"
	"errors"
	"fmt"
)

// bounds of Check: far beyond what is measured on a quiet machine, so that a busy
// one does not fail, and near enough to show that something has become much worse.
var bounds = []struct { //nolint:gochecknoglobals // never changed
	row, metric string
	atLeast     float64 // ratio to echo; 0: not checked
	atMost      float64
}{
	{"closed-1", "rate", 0.5, 0},
	{"closed-100", "rate", 0.45, 0},
	{"closed-100", "cpu", 0, 4},
	{"storm-300", "connect", 0, 8},
	{"library-100", "cpu", 0, 8},
}

// Check measures a few rows briefly and returns an error when the server has become
// much slower than the echo.
func Check(ctx context.Context, opts Options) (Report, error) {
	r, err := run(ctx, opts, func(ctx context.Context, b *bencher, r *Report) error {
		for _, s := range []scenario{
			closedLoop(1, metric{key: "rate", title: "rate", unit: "1/s"}),
			closedLoop(100, metric{key: "rate", title: "rate", unit: "1/s"}, metric{key: "cpu", title: "cpu", unit: "s per 1000"}),
			storm(300),
			libraryLoop(100, 1.3),
		} {
			if err := b.measure(ctx, s, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	var failed []error
	for _, bound := range bounds {
		for _, res := range r.Results {
			if res.Row != bound.row || res.key != bound.metric || res.Ratio == nil {
				continue
			}
			if x := *res.Ratio; bound.atLeast > 0 && x < bound.atLeast || bound.atMost > 0 && x > bound.atMost {
				failed = append(failed, fmt.Errorf("%s, %s: %.2f × echo, expected at least %v and at most %v (0: any)", bound.row, bound.metric, x, bound.atLeast, bound.atMost))
			}
		}
	}
	return r, errors.Join(failed...)
}
