package fleetapi

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
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
)

const (
	// requestTimeout is the client timeout of MM-3.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds what is read of one answer with commands.
	maxAnswer = 64 << 20
	// maxReason bounds what is kept of the API's explanation of a refusal.
	maxReason = 300
)

// remote is the API at an URL. It makes the requests of the C++ libraries (MM-1,
// MM-3, MM-4), reads arrays message by message so that one unreadable message
// costs only itself (MM-14), and shows the key to nobody but the API.
type remote struct {
	client *http.Client
	base   string // without trailing slash
	key    string
}

func newRemote(client *http.Client, base, key string) *remote {
	return &remote{client: client, base: base, key: key}
}

// answerError is an answer that breaks the contract of the API, such as the
// page of a web server that is something else.
type answerError struct{ text string }

func (e *answerError) Error() string { return e.text }

// PostStatuses is HTTP-7.
func (r *remote) PostStatuses(ctx context.Context, car fleet.CarID, messages []httpapi.Message) error {
	body, err := encode(messages)
	if err != nil {
		return err
	}
	resp, cancel, err := r.do(ctx, http.MethodPost, "status", car, r.query(nil), body)
	if err != nil {
		return err
	}
	defer cancel()
	defer finish(resp)
	if resp.StatusCode >= 300 {
		return r.refusal(resp)
	}
	return nil
}

// Commands is HTTP-4 with the query of MM-4. A message that cannot be read is
// returned as its timestamp alone.
func (r *remote) Commands(ctx context.Context, car fleet.CarID, q httpapi.Query) ([]httpapi.Message, error) {
	query := r.query(url.Values{
		"since": {strconv.FormatInt(q.Since, 10)},
		"wait":  {strconv.FormatBool(q.Wait)},
	})
	resp, cancel, err := r.do(ctx, http.MethodGet, "command", car, query, nil)
	if err != nil {
		return nil, err
	}
	defer cancel()
	defer finish(resp)
	if resp.StatusCode >= 300 {
		return nil, r.refusal(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "application/json" { // MM-5
		return nil, &answerError{fmt.Sprintf("the answer is of type %q instead of application/json; does %s lead to the HTTP API?", kind, keyURL)}
	}
	return decodeMessages(io.LimitReader(resp.Body, maxAnswer))
}

func (r *remote) query(v url.Values) string {
	if r.key != "" {
		if v == nil {
			v = make(url.Values, 1)
		}
		v.Set("api_key", r.key)
	}
	return v.Encode() // sorted by name
}

// do makes one request. After an error there is nothing to close.
func (r *remote) do(ctx context.Context, method, resource string, car fleet.CarID, query string, body []byte) (*http.Response, context.CancelFunc, error) {
	target := r.base + "/" + resource + "/" + car.Company + "/" + car.Car
	if query != "" {
		target += "?" + query
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		cancel()
		return nil, nil, errors.New("the request cannot be made from " + keyURL)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "") // none (MM-3)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		cancel()
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which holds the key
		}
		if caller.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", requestTimeout, context.DeadlineExceeded)
		}
		return nil, nil, fmt.Errorf("%s /%s: %w", method, resource, err)
	}
	return resp, cancel, nil
}

// refusal turns an answer that is not a success into an *httpapi.Error.
func (r *remote) refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	e := &httpapi.Error{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	var problem httpapi.Error
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		e.Detail = problem.Detail
	} else {
		e.Detail = strings.TrimSpace(string(body))
	}
	if where := resp.Header.Get("Location"); resp.StatusCode < 400 && where != "" {
		e.Detail = "redirected to " + where + "; set " + keyURL + " to the final address"
	}
	e.Detail = r.hideKey(printable(e.Detail))
	return e
}

func (r *remote) hideKey(s string) string {
	if r.key == "" {
		return s
	}
	s = strings.ReplaceAll(s, r.key, "(api_key)")
	return strings.ReplaceAll(s, url.QueryEscape(r.key), "(api_key)")
}

// printable makes one bounded line out of what a stranger wrote.
func printable(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

// finish reads the rest of a small answer so that its connection is kept.
func finish(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096)) // the answer has been used already
	_ = resp.Body.Close()
}

// encode writes the array of MM-1 without escaping what HTML would need.
func encode(messages []httpapi.Message) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(messages); err != nil {
		return nil, fmt.Errorf("encode statuses: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decodeMessages reads one array. An element that is not a message yields a
// Message with nothing but the timestamp, if it has one (MM-14).
func decodeMessages(r io.Reader) ([]httpapi.Message, error) {
	broken := func(err error) error {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("the answer with commands is cut off: %w", io.ErrUnexpectedEOF)
		}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return &answerError{"the answer with commands is not JSON: " + err.Error()}
		}
		return fmt.Errorf("read commands: %w", err)
	}
	d := json.NewDecoder(r)
	token, err := d.Token()
	if err != nil {
		return nil, broken(err)
	}
	if token != json.Delim('[') {
		return nil, &answerError{"the answer with commands is not a JSON array"} // MM-5
	}
	var messages []httpapi.Message
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, broken(err)
		}
		var m httpapi.Message
		if json.Unmarshal(raw, &m) != nil {
			var stamp struct {
				Timestamp json.Number `json:"timestamp"`
			}
			_ = json.Unmarshal(raw, &stamp) // without it the message moves no cursor
			m = httpapi.Message{}
			m.Timestamp, _ = stamp.Timestamp.Int64()
		}
		messages = append(messages, m)
	}
	if _, err := d.Token(); err != nil {
		return nil, broken(err)
	}
	return messages, nil
}
