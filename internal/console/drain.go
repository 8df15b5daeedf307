package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// drainPoll is how often the endpoint is asked how far a drain is.
const drainPoll = 250 * time.Millisecond

// Drain makes a replica give its cars to the others, and returns when it serves none any
// more; an empty name is the replica behind the endpoint. After the limit it returns an
// error; the drain goes on.
func (c *Client) Drain(ctx context.Context, replica string, limit time.Duration, out, notes io.Writer) error {
	var body any
	if replica != "" {
		body = map[string]string{"replica": replica}
	}
	text, err := c.change(ctx, http.MethodPost, "/api/v1/drain", nil, body)
	if err != nil {
		if no, ok := errors.AsType[*refused](err); ok && no.Status == http.StatusMethodNotAllowed {
			return errors.New("the running server is of a version that has no clusters")
		}
		return err
	}
	fmt.Fprintln(out, text)
	late := fmt.Errorf("after %v the replica still serves cars; it goes on handing them over, and \"external-server cars\" of any replica shows how far it is", limit)
	bound, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for last := -1; ; {
		name, left, err := c.shardsOf(bound, replica)
		switch {
		case bound.Err() != nil:
			return context.Cause(bound)
		case err != nil:
			return err
		case left == 0:
			fmt.Fprintf(out, "replica %s serves no car; it can be ended\n", Clean(name))
			return nil
		case left != last:
			last = left
			shards := "shards"
			if left == 1 {
				shards = "shard"
			}
			fmt.Fprintf(notes, "replica %s: %d %s left\n", Clean(name), left, shards)
		}
		select {
		case <-bound.Done():
			return context.Cause(bound)
		case <-tick.C:
		}
	}
}

// shardsOf returns how many shards a replica has that is a member; an empty name is the
// replica behind the endpoint.
func (c *Client) shardsOf(ctx context.Context, replica string) (name string, shards int, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/api/v1/server", nil, nil, nil)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	var told struct {
		Cluster *struct {
			Self   string `json:"self"`
			Shards []struct {
				Replica string `json:"replica"`
			} `json:"shards"`
		} `json:"cluster"`
	}
	if err := decode(resp.Body, &told); err != nil || told.Cluster == nil {
		return "", 0, fmt.Errorf("the answer of %s is not that of a replica", c.base)
	}
	if name = replica; name == "" {
		name = told.Cluster.Self
	}
	for _, s := range told.Cluster.Shards {
		if s.Replica == name {
			shards++
		}
	}
	return name, shards, nil
}
