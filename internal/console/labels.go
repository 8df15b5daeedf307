package console

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// labels are those of one car.
type labels map[string]string

// String returns them in the order of their names.
func (l labels) String() string {
	parts := make([]string, 0, len(l))
	for _, name := range sortedKeys(l) {
		parts = append(parts, name+"="+l[name])
	}
	return strings.Join(parts, " ")
}

// Labels returns the labels of so many cars of the running server, each once, as
// NAME=VALUE.
func Labels(ctx context.Context, c *Client, cars int) ([]string, error) {
	var list struct {
		Cars []carBrief `json:"cars"`
	}
	if err := c.get(ctx, "/api/v1/cars", url.Values{"limit": {strconv.Itoa(cars)}}, &list); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, b := range list.Cars {
		for name, value := range b.Labels {
			seen[name+"="+value] = true
		}
	}
	out := sortedKeys(seen)
	return slices.DeleteFunc(out, func(label string) bool { return Clean(label) != label }), nil
}
