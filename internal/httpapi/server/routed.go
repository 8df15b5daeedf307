package server

import (
	"context"
	"errors"
	"net/http"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/core"
)

// routed is the API of a cluster for users in the process. What concerns cars of this
// replica goes to the core; all else takes the way of a client's requests, in process, and
// is held or passed on there.
type routed struct {
	core   *core.Core
	client *httpapi.Client
}

var errNoOwner = httpapi.NewError(http.StatusServiceUnavailable, "another replica takes over the car at the moment; try again")

// PostStatuses implements httpapi.API.
func (a *routed) PostStatuses(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error {
	if a.core.MayServe(car) {
		if err := a.core.PostStatuses(ctx, car, messages); !errors.Is(err, core.ErrMoved) {
			return err
		}
	}
	return a.client.PostStatuses(ctx, car, messages)
}

// PostCommands implements httpapi.API.
func (a *routed) PostCommands(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error {
	if a.core.MayServe(car) {
		if err := a.core.PostCommands(ctx, car, messages); !errors.Is(err, core.ErrMoved) {
			return err
		}
	}
	return a.client.PostCommands(ctx, car, messages)
}

// Statuses implements httpapi.API.
func (a *routed) Statuses(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	if a.core.MayServe(car) {
		if messages, err := a.core.Statuses(ctx, car, q); !errors.Is(err, core.ErrMoved) {
			return messages, err
		}
	}
	return a.client.Statuses(ctx, car, q)
}

// Commands implements httpapi.API.
func (a *routed) Commands(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	if a.core.MayServe(car) {
		if messages, err := a.core.Commands(ctx, car, q); !errors.Is(err, core.ErrMoved) {
			return messages, err
		}
	}
	return a.client.Commands(ctx, car, q)
}

// PollCommands implements API. A poll whose car moves to another replica ends with 503:
// the next one finds its way.
func (a *routed) PollCommands(car fleet.CarID, since int64, done func([]httpapi.Message, error)) (stop func() bool) {
	if !a.core.MayServe(car) {
		return a.client.PollCommands(car, since, done)
	}
	return a.core.PollCommands(car, since, func(messages []httpapi.Message, err error) {
		if errors.Is(err, core.ErrMoved) {
			err = errNoOwner
		}
		done(messages, err)
	})
}

// Cars implements httpapi.API.
func (a *routed) Cars(ctx context.Context, q httpapi.Query) ([]httpapi.Car, error) {
	return a.core.Cars(ctx, q)
}

// AvailableDevices implements httpapi.API.
func (a *routed) AvailableDevices(ctx context.Context, car fleet.CarID, module *int64) ([]httpapi.Module, error) {
	return a.core.AvailableDevices(ctx, car, module)
}
