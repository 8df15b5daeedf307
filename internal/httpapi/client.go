package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
)

// Defaults of a client.
const (
	clientTimeout      = 30 * time.Second // MM-3
	DefaultMaxResponse = 64 << 20
	// idleConnections must not be less than the long polls that end together: a
	// connection beyond it is closed and made anew for the next poll.
	idleConnections = 1 << 16
)

// ClientOptions are what a Client is made from. Only URL is required.
type ClientOptions struct {
	// URL is the module's api_url: everything up to and with /v2/protocol
	// (HTTP-1).
	URL string
	// APIKey goes into the query of every request (HTTP-2) and nowhere else: no
	// error and no log line contains it. Empty: none is sent.
	APIKey config.Secret
	TLS    *config.TLS // nil: the system's certificate authorities
	// Timeout of one request; 0 is 30 s (MM-3).
	Timeout time.Duration
	// MaxResponse bounds an answer in bytes; 0 is 64 MiB.
	MaxResponse int64
	// Transport replaces the client's own, such as Server.RoundTripper does; TLS
	// is then not used.
	Transport http.RoundTripper
}

// Client is the API over HTTP. It implements API. Connections are kept and
// shared, HTTP/2 is used where it is offered, the proxy is that of the
// environment. Redirects are not followed: they would carry the key elsewhere.
type Client struct {
	base        string
	key         string
	timeout     time.Duration
	maxResponse int64
	transport   http.RoundTripper
	own         *http.Transport
	held        *longPoller // for requests that wait; nil: transport

	ctx     context.Context // ends polls
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup // polls
}

// NewClient makes a client; it does not connect yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("api_url is not valid; expected http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH without user and query")
	}
	c := &Client{base: strings.TrimRight(o.URL, "/"), key: o.APIKey.Reveal(), timeout: o.Timeout, maxResponse: o.MaxResponse}
	if c.timeout <= 0 {
		c.timeout = clientTimeout
	}
	if c.maxResponse <= 0 {
		c.maxResponse = DefaultMaxResponse
	}
	c.transport = o.Transport
	if o.Transport == nil {
		if c.own, err = newTransport(o.TLS); err != nil {
			return nil, err
		}
		c.transport = c.own
		c.held = newLongPoller(u, c.maxResponse)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the polls, waits for them and closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
	if c.held != nil {
		c.held.close()
	}
}

// PostStatuses implements API.
func (c *Client) PostStatuses(ctx context.Context, car fleet.CarID, messages []Message) error {
	return c.post(ctx, KindStatus, car, messages)
}

// PostCommands implements API.
func (c *Client) PostCommands(ctx context.Context, car fleet.CarID, messages []Message) error {
	return c.post(ctx, KindCommand, car, messages)
}

// Statuses implements API.
func (c *Client) Statuses(ctx context.Context, car fleet.CarID, q Query) ([]Message, error) {
	return c.get(ctx, KindStatus, car, q)
}

// Commands implements API.
func (c *Client) Commands(ctx context.Context, car fleet.CarID, q Query) ([]Message, error) {
	return c.get(ctx, KindCommand, car, q)
}

// PollCommands implements API. Over a network a poll does need a goroutine.
func (c *Client) PollCommands(car fleet.CarID, since int64, done func([]Message, error)) (stop func() bool) {
	ctx, cancel := context.WithCancel(c.ctx)
	var once sync.Once
	finish := func(messages []Message, err error) {
		once.Do(func() { done(messages, err) })
		cancel()
	}
	stop = func() bool {
		stopped := false
		once.Do(func() { stopped = true })
		cancel()
		return stopped
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.running.Add(1)
	}
	c.mu.Unlock()
	if closed {
		go finish(nil, errors.New("the API client is closed"))
		return stop
	}
	go func() {
		defer c.running.Done()
		finish(c.get(ctx, KindCommand, car, Query{Since: since, Wait: true}))
	}()
	return stop
}

// Cars implements API.
func (c *Client) Cars(ctx context.Context, q Query) ([]Car, error) {
	var cars []Car
	err := c.query(ctx, "/cars", q.Values(), &cars)
	return cars, err
}

// AvailableDevices implements API.
func (c *Client) AvailableDevices(ctx context.Context, car fleet.CarID, module *int64) ([]Module, error) {
	values := url.Values{}
	if module != nil {
		values.Set("module_id", strconv.FormatInt(*module, 10))
	}
	path := CarPath("/available-devices", car)
	if module != nil { // one object instead of an array (HTTP-9)
		var one Module
		if err := c.query(ctx, path, values, &one); err != nil {
			return nil, err
		}
		return []Module{one}, nil
	}
	var modules []Module
	err := c.query(ctx, path, values, &modules)
	return modules, err
}

func (c *Client) post(ctx context.Context, k Kind, car fleet.CarID, messages []Message) error {
	if messages == nil {
		messages = []Message{}
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(messages); err != nil {
		return fmt.Errorf("encode %s messages: %w", k, err)
	}
	_, err := c.do(ctx, http.MethodPost, CarPath("/"+k.String(), car), url.Values{}, bytes.TrimRight(body.Bytes(), "\n"))
	return err
}

func (c *Client) get(ctx context.Context, k Kind, car fleet.CarID, q Query) ([]Message, error) {
	var items []json.RawMessage
	if err := c.query(ctx, CarPath("/"+k.String(), car), q.Values(), &items); err != nil {
		return nil, err
	}
	if items == nil { // null
		return nil, errors.New("the answer is not an array")
	}
	messages := make([]Message, len(items))
	for i, item := range items {
		messages[i] = looseMessage(item)
	}
	return messages, nil
}

// looseMessage accepts what the module libraries would crash on (MM-14). One
// message that is none must not make the others unreadable: of it only the
// timestamp is kept, so that the next poll does not bring it again.
func looseMessage(item []byte) Message {
	var whole struct {
		DeviceID  *DeviceID `json:"device_id"`
		Payload   *Payload  `json:"payload"`
		Timestamp int64     `json:"timestamp"`
	}
	if json.Unmarshal(item, &whole) == nil {
		m := Message{Timestamp: whole.Timestamp}
		if whole.DeviceID != nil && whole.Payload != nil && string(whole.Payload.Data) != "null" {
			m.DeviceID, m.Payload = *whole.DeviceID, *whole.Payload
		}
		return m
	}
	var stamp struct {
		Timestamp int64 `json:"timestamp"`
	}
	if json.Unmarshal(item, &stamp) != nil {
		return Message{}
	}
	return Message{Timestamp: stamp.Timestamp}
}

// do makes one request and returns the body of a successful answer. Keys appear
// in no error.
func (c *Client) do(ctx context.Context, method, path string, values url.Values, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	fail := func(err error) error {
		return fmt.Errorf("%s %s%s: %w", method, c.base, path, c.redact(err))
	}
	if c.key != "" {
		values.Set("api_key", c.key)
	}
	target := c.base + path
	if len(values) > 0 {
		target += "?" + values.Encode() // in alphabetical order (MM-4)
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, fail(err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "") // MM-3
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	// Redirects are not followed, so the transport is all of the client there is
	// to use; its frames would make the stack of every long poll larger.
	transport := c.transport
	if c.held != nil && values.Get("wait") == "true" {
		transport = c.held
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fail(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, c.maxResponse+1))
	if err != nil {
		return nil, fail(err)
	}
	if int64(len(answer)) > c.maxResponse {
		return nil, fail(fmt.Errorf("the answer is larger than %d bytes", c.maxResponse))
	}
	if response.StatusCode >= 300 {
		return nil, fail(c.errorAnswer(response, answer))
	}
	if method == http.MethodGet { // MM-5
		if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); !IsJSON(mediaType) {
			return nil, fail(fmt.Errorf("the answer has Content-Type %s; expected application/json", Quote(response.Header.Get("Content-Type"))))
		}
	}
	return answer, nil
}

// errorAnswer makes an *Error of an answer of any form.
func (c *Client) errorAnswer(response *http.Response, body []byte) *Error {
	e := NewError(response.StatusCode, "%s", "")
	var problem struct{ Detail, Title string }
	if json.Unmarshal(body, &problem) == nil && problem.Detail+problem.Title != "" {
		e.Detail = problem.Detail
		if problem.Title != "" && problem.Title != e.Title {
			e.Detail = strings.TrimPrefix(problem.Title+": "+problem.Detail, ": ")
		}
	} else if text := strings.TrimSpace(string(body)); text != "" && text != "[]" && text != "{}" {
		e.Detail = text
	}
	if where := response.Header.Get("Location"); where != "" && response.StatusCode < 400 {
		e.Detail = "redirected to " + where + "; set api_url to the final address"
	}
	e.Detail = c.hideKey(e.Detail)
	if len(e.Detail) > 500 {
		e.Detail = strings.ToValidUTF8(e.Detail[:500], "") + "…"
	}
	return e
}

func (c *Client) hideKey(text string) string {
	if c.key == "" {
		return text
	}
	text = strings.ReplaceAll(text, c.key, "***")
	return strings.ReplaceAll(text, url.QueryEscape(c.key), "***")
}

// redact takes the URL, and with it the key, out of an error of net/http.
func (c *Client) redact(err error) error {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	if text := err.Error(); c.hideKey(text) != text {
		return errors.New(c.hideKey(text))
	}
	return err
}

// query makes one reading request and decodes its answer.
func (c *Client) query(ctx context.Context, path string, values url.Values, into any) error {
	body, err := c.do(ctx, http.MethodGet, path, values, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("GET %s%s: the answer is not what the API returns: %w", c.base, path, err)
	}
	return nil
}
