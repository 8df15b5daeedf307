package httpapi

import (
	"context"
	"errors"
	"net/http"

	"external-server/internal/fleet"
)

// routed is the API of a cluster for users in the process. What concerns cars of this
// replica goes to the core; all else takes the way of a client's requests, in process, and
// is held or passed on there.
type routed struct {
	core   *core
	client *Client
}

var errNoOwner = newError(http.StatusServiceUnavailable, "another replica takes over the car at the moment; try again")

func (a *routed) PostStatuses(ctx context.Context, car fleet.CarID, messages []Message) error {
	if a.core.mayServe(car) {
		if err := a.core.PostStatuses(ctx, car, messages); !errors.Is(err, errMoved) {
			return err
		}
	}
	return a.client.PostStatuses(ctx, car, messages)
}

func (a *routed) PostCommands(ctx context.Context, car fleet.CarID, messages []Message) error {
	if a.core.mayServe(car) {
		if err := a.core.PostCommands(ctx, car, messages); !errors.Is(err, errMoved) {
			return err
		}
	}
	return a.client.PostCommands(ctx, car, messages)
}

func (a *routed) Statuses(ctx context.Context, car fleet.CarID, q Query) ([]Message, error) {
	if a.core.mayServe(car) {
		if messages, err := a.core.Statuses(ctx, car, q); !errors.Is(err, errMoved) {
			return messages, err
		}
	}
	return a.client.Statuses(ctx, car, q)
}

func (a *routed) Commands(ctx context.Context, car fleet.CarID, q Query) ([]Message, error) {
	if a.core.mayServe(car) {
		if messages, err := a.core.Commands(ctx, car, q); !errors.Is(err, errMoved) {
			return messages, err
		}
	}
	return a.client.Commands(ctx, car, q)
}

// PollCommands implements API. A poll whose car moves to another replica ends with 503:
// the next one finds its way.
func (a *routed) PollCommands(car fleet.CarID, since int64, done func([]Message, error)) (stop func() bool) {
	if !a.core.mayServe(car) {
		return a.client.PollCommands(car, since, done)
	}
	return a.core.PollCommands(car, since, func(messages []Message, err error) {
		if errors.Is(err, errMoved) {
			err = errNoOwner
		}
		done(messages, err)
	})
}

func (a *routed) Cars(ctx context.Context, q Query) ([]Car, error) { return a.core.Cars(ctx, q) }

func (a *routed) AvailableDevices(ctx context.Context, car fleet.CarID, module *int64) ([]Module, error) {
	return a.core.AvailableDevices(ctx, car, module)
}
