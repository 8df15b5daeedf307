package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// CarNames returns the names of at most so many cars that contain the text, by name.
func CarNames(ctx context.Context, c *Client, text string, limit int) ([]string, error) {
	var list struct {
		Cars []struct {
			Name string `json:"name"`
		} `json:"cars"`
	}
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if text != "" {
		query.Set("q", text)
	}
	if err := c.get(ctx, "/api/v1/cars", query, &list); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list.Cars))
	for _, car := range list.Cars {
		names = append(names, Clean(car.Name))
	}
	return names, nil
}

// Components returns the names of the server's components that log.
func Components(ctx context.Context, c *Client) ([]string, error) {
	var levels map[string]struct{}
	if err := c.get(ctx, "/api/v1/log-levels", nil, &levels); err != nil {
		return nil, err
	}
	return sortedKeys(levels), nil
}

// Unknown tells whether the endpoint does not know what was asked for.
func Unknown(err error) bool {
	var no *refused
	return errors.As(err, &no) && no.Status == http.StatusNotFound
}
