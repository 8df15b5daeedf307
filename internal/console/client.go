package console

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client talks to the admin endpoint.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// maxAnswer bounds an answer: ten thousand cars need 4 MB.
const maxAnswer = 64 << 20

// NewClient returns a client of the endpoint at the URL. TLS may be nil; token
// may be empty.
func NewClient(base, token string, settings *tls.Config) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("admin endpoint %q: expected a URL such as http://127.0.0.1:8090", base)
	}
	transport := &http.Transport{
		TLSClientConfig:       settings,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: 70 * time.Second, // a reload may take a minute
		TLSHandshakeTimeout:   5 * time.Second,
	}
	return &Client{base: u, token: token, http: &http.Client{Transport: transport}}, nil
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// unreachable is an error without an answer of the endpoint.
type unreachable struct{ error }

func (e unreachable) Unwrap() error { return e.error }

// Away tells whether the error means that the server is not there or not ready, so
// that the same may succeed later.
func Away(err error) bool {
	var gone unreachable
	var no *refused
	return errors.As(err, &gone) || errors.As(err, &no) && no.Status == http.StatusServiceUnavailable
}

// refused is an error the endpoint answered with.
type refused struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (e *refused) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	switch e.Status {
	case http.StatusUnauthorized:
		text += " (give it with --token or in EXTERNAL_SERVER_ADMIN_TOKEN)"
	}
	return Clean(text)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any, header http.Header) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var reader io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	r.Header.Set("X-External-Server", "command line")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, unreachable{fmt.Errorf("admin endpoint %s cannot be asked: %w (is the server running, with a block \"admin\"? another address is given with --admin)", c.base, err)}
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		problem := &refused{Status: resp.StatusCode, Title: resp.Status}
		_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(problem)
		return nil, problem
	}
	return resp, nil
}

// Raw returns the JSON answer of a GET.
func (c *Client) Raw(ctx context.Context, path string, query url.Values) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, path, query, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, unreachable{fmt.Errorf("admin endpoint: %w", err)}
	}
	return raw, nil
}

// get decodes the JSON answer of a GET.
func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	raw, err := c.Raw(ctx, path, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("the answer of %s is not that of an admin endpoint: %w", c.base, err)
	}
	return nil
}

// Change makes a request that changes something and returns the endpoint's text.
func (c *Client) Change(ctx context.Context, method, path string, body any) (string, error) {
	return c.change(ctx, method, path, nil, body)
}

// Reload makes the server put its configuration file in force, with all also the other
// replicas of its cluster, one after the other.
func (c *Client) Reload(ctx context.Context, all bool) (string, error) {
	query := url.Values{}
	if all {
		query.Set("all", "true")
	}
	return c.change(ctx, http.MethodPost, "/api/v1/reload", query, nil)
}

func (c *Client) change(ctx context.Context, method, path string, query url.Values, body any) (string, error) {
	resp, err := c.do(ctx, method, path, query, body, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var done struct {
		Result string `json:"result"`
	}
	if err := decode(resp.Body, &done); err != nil {
		return "", fmt.Errorf("the answer of %s is not that of an admin endpoint: %w", c.base, err)
	}
	return Clean(done.Result), nil
}

// decode reads a short answer.
func decode(body io.Reader, into any) error {
	return json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(into)
}

// Sent is one event of a stream.
type Sent struct {
	ID, Kind string
	Data     []byte
}

// Stream calls each with the events of a stream until ctx ends or each returns an
// error. It reconnects, resuming after the last id, and says so to notes; it gives
// up when the first attempt fails or the endpoint refuses.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, notes io.Writer, each func(Sent) error) error {
	last, pause, first, lost := "", 500*time.Millisecond, true, false
	for {
		header := http.Header{"Accept": {"text/event-stream"}}
		if last != "" {
			header.Set("Last-Event-Id", last)
		}
		resp, err := c.do(ctx, http.MethodGet, path, query, nil, header)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (first || !Away(err)):
			return err
		case err == nil:
			if lost {
				fmt.Fprintln(notes, "connected again")
			}
			first, lost, pause = false, false, 500*time.Millisecond
			err = readEvents(resp.Body, func(ev Sent) error {
				if ev.ID != "" {
					last = ev.ID
				}
				return each(ev)
			})
			resp.Body.Close()
			var stop stopped
			if errors.As(err, &stop) {
				return stop.err
			}
		}
		if ctx.Err() == nil && !lost {
			lost = true
			fmt.Fprintln(notes, "the connection to the server is lost; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, 10*time.Second)
		}
	}
}

// stopped marks an error of the reader's own.
type stopped struct{ err error }

func (s stopped) Error() string { return "stopped" }

// maxLine bounds a line of a stream.
const maxLine = 1 << 20

// readEvents reads server-sent events.
func readEvents(from io.Reader, each func(Sent) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 4096), maxLine)
	var ev Sent
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			if len(ev.Data) > 0 {
				if err := each(ev); err != nil {
					return stopped{err}
				}
			}
			ev = Sent{}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			ev.ID = value
		case "event":
			ev.Kind = value
		case "data":
			if len(ev.Data) > 0 {
				ev.Data = append(ev.Data, '\n')
			}
			ev.Data = append(ev.Data, value...)
		}
	}
	return lines.Err()
}
