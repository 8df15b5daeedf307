package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/keys"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// The contract table runs against the embedded server, or against any other API:
//
//	go test ./internal/httpapi/server -run Contract -api-url http://host:8080/v2/protocol -api-key KEY
var (
	apiURL = flag.String("api-url", "", "check the contract of the API at this URL instead of the embedded one")
	apiKey = flag.String("api-key", "", "key for -api-url")
)

// step is one request of testdata/contract.json and what it must return.
type step struct {
	Name    string
	Rules   string
	Send    string          // method, path and query; {names} are replaced
	While   string          // this is sent, with the payload, while Send is under way
	Payload []string        // names of messages, see contractMessages
	Text    string          // body as it is, instead of Payload
	Type    string          // Content-Type of the body, application/json if empty
	HTML    bool            // the answer is a page
	Bearer  string          // bearer token to send as well
	Status  int             // of the answer to Send
	Body    json.RawMessage // nil: any. Strings of an array are "message @variable"
}

var contractMessages = map[string]string{
	"status a":          message(1, 1, "driving", "Autonomy", "STATUS", `{"state":"IDLE","ünicode":"\"\\<>&"}`),
	"status b":          message(2, 4, "button", "Button 1", "STATUS", `[{"butPr":1},[],1.5e3]`),
	"error b":           message(2, 4, "button", "Button 1", "STATUS_ERROR", `{"aggregatedButtonPresses":2}`),
	"status b renamed":  message(2, 4, "button", "Another button", "STATUS", `{}`),
	"status c":          message(1, 2, "driving", "Second", "STATUS", `{}`),
	"command a":         message(1, 1, "driving", "Autonomy", "COMMAND", `{"action":"START","stops":[]}`),
	"command a renamed": message(1, 1, "driving", "Another name", "COMMAND", `"text"`),
	"command b":         message(2, 4, "button", "Button 1", "COMMAND", `[{"actType":1,"outNum":2}]`),
	"command c":         message(1, 7, "driving", "Autonomy", "COMMAND", `{}`),
	"text":              strings.Replace(message(3, 9, "driving", "x", "STATUS", `"text"`), `"JSON"`, `"BASE64"`, 1),
}

func message(module, typ int, role, name, messageType, data string) string {
	return fmt.Sprintf(`{"device_id":{"module_id":%d,"type":%d,"role":%q,"name":%q},"payload":{"message_type":%q,"encoding":"JSON","data":%s}}`,
		module, typ, role, name, messageType, data)
}

func TestContract(t *testing.T) {
	if *apiURL != "" {
		runContract(t, *apiURL, *apiKey, http.DefaultClient, func(time.Duration) {})
		return
	}
	forEachStore(t, func(t *testing.T, store string) {
		file := t.TempDir() + "/keys.json"
		key, err := keys.Add(file, "contract", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s := startServer(t, Options{Config: config.HTTPAPI{Store: config.NewSecret(store), KeysFile: file}})
		runContract(t, "http://"+s.Addr().String()+httpapi.BasePath, key, testClient(t), s.SetWaitTimeout)
	})
}

// TestContractInProcess runs the same table through the transport that needs no
// network.
func TestContractInProcess(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{Store: apitest.TempStore(t)}})
	runContract(t, "http://anything"+httpapi.BasePath, "", &http.Client{Transport: s.RoundTripper()}, s.SetWaitTimeout)
}

func runContract(t *testing.T, base, key string, client *http.Client, hold func(time.Duration)) {
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	if err := json.Unmarshal(text, &steps); err != nil {
		t.Fatal(err)
	}
	suffix := strconv.FormatUint(rand.Uint64(), 36)
	c := &contract{base: strings.TrimRight(base, "/"), key: key, client: client, vars: map[string]string{
		"company": "contract_company", "car": "car_" + suffix, "new": "new_" + suffix, "key": "some_key",
	}}
	for _, s := range steps {
		// What is waited for in vain need not last; what comes may take its time.
		if hold(testwait.Patience); s.While == "" {
			hold(100 * time.Millisecond)
		}
		t.Run(s.Name, func(t *testing.T) { c.run(t, s) })
		if t.Failed() {
			t.Fatalf("stopped: the steps build on each other (%s)", s.Rules)
		}
	}
}

type contract struct {
	base, key string
	client    *http.Client
	vars      map[string]string
}

var variable = regexp.MustCompile(`\{(\w+)(\+1)?\}`)

func (c *contract) expand(text string) string {
	return variable.ReplaceAllStringFunc(text, func(v string) string {
		parts := variable.FindStringSubmatch(v)
		value, ok := c.vars[parts[1]]
		if ok && parts[2] != "" {
			n, _ := strconv.ParseInt(value, 10, 64)
			value = strconv.FormatInt(n+1, 10)
		}
		if !ok {
			return v
		}
		return value
	})
}

type contractAnswer struct {
	code        int
	contentType string
	body        []byte
	err         error
}

func (c *contract) send(what string, s step, withBody bool) (a contractAnswer) {
	method, target, _ := strings.Cut(c.expand(what), " ")
	u, err := url.Parse(c.base + target)
	if err != nil {
		return contractAnswer{err: err}
	}
	q := u.Query()
	if c.key != "" && s.Bearer == "" {
		q.Set("api_key", c.key)
	}
	u.RawQuery = q.Encode()
	var body io.Reader
	if withBody {
		text := s.Text
		if text == "" {
			var messages []string
			for _, name := range s.Payload {
				messages = append(messages, contractMessages[name])
			}
			text = "[" + strings.Join(messages, ",") + "]"
		}
		body = strings.NewReader(text)
	}
	r, err := http.NewRequest(method, u.String(), body)
	if err != nil {
		return contractAnswer{err: err}
	}
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", cmp.Or(s.Type, "application/json"))
	}
	if s.Bearer != "" {
		r.Header.Set("Authorization", "Bearer "+s.Bearer)
	}
	response, err := c.client.Do(r)
	if err != nil {
		return contractAnswer{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	a.code, a.contentType = response.StatusCode, response.Header.Get("Content-Type")
	a.body, a.err = io.ReadAll(response.Body)
	return a
}

func (c *contract) run(t *testing.T, s step) {
	var a contractAnswer
	if s.While == "" {
		a = c.send(s.Send, s, strings.HasPrefix(s.Send, "POST"))
	} else {
		held := make(chan contractAnswer, 1)
		go func() { held <- c.send(s.Send, s, false) }()
		// Whether it arrives before or after the held request, that one must
		// return exactly what is posted.
		if posted := c.send(s.While, s, true); posted.err != nil || posted.code != 200 {
			t.Fatalf("%s: %d %s %v", s.While, posted.code, posted.body, posted.err)
		}
		a = <-held
	}
	if a.err != nil {
		t.Fatal(a.err)
	}
	if a.code != s.Status {
		t.Fatalf("%s: status %d, expected %d; body %s (%s)", s.Send, a.code, s.Status, a.body, s.Rules)
	}
	reads := strings.HasPrefix(s.Send, "GET")
	// The generated clients read nothing else, neither after GET nor after POST.
	if wanted := a.code == 200 || reads && a.code == 404 && s.Body != nil; wanted && !s.HTML && !strings.HasPrefix(a.contentType, "application/json") {
		t.Errorf("%s: Content-Type %q", s.Send, a.contentType)
	}
	var text string
	if !reads && a.code == 200 && (json.Unmarshal(a.body, &text) != nil || text == "") {
		t.Errorf("%s: the answer is %s; expected a JSON string (HTTP-5, HTTP-7)", s.Send, a.body)
	}
	if s.Body != nil {
		c.compare(t, s, a.body)
	}
}

// compare checks a body and binds the variables of timestamps.
func (c *contract) compare(t *testing.T, s step, body []byte) {
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("body %s: %v", body, err)
	}
	if err := json.Unmarshal([]byte(c.expand(string(s.Body))), &want); err != nil {
		t.Fatal(err)
	}
	items, _ := want.([]any)
	gotItems, _ := got.([]any)
	for i, item := range items {
		text, ok := item.(string)
		if !ok {
			continue
		}
		name, timestamp, _ := strings.Cut(text, " @")
		var m map[string]any
		if err := json.Unmarshal([]byte(contractMessages[name]), &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if i < len(gotItems) {
			g, _ := gotItems[i].(map[string]any)
			at, _ := g["timestamp"].(float64)
			if _, bound := c.vars[timestamp]; !bound && at > 1e12 {
				c.vars[timestamp] = strconv.FormatInt(int64(at), 10)
			}
		}
		n, err := strconv.ParseFloat(c.vars[timestamp], 64)
		if err != nil {
			t.Fatalf("no timestamp in ms for %s in %s", text, body)
		}
		m["timestamp"] = n
		items[i] = m
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) {
		t.Fatalf("%s (%s):\n got %s\nwant %s", s.Send, s.Rules, a, b)
	}
}

// TestContractCoversTheRules fails when a rule of HTTP-2 to HTTP-17 or HTTP-19 has no step. HTTP-18 takes
// longer than a table can wait.
func TestContractCoversTheRules(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19} {
		if !regexp.MustCompile(fmt.Sprintf(`HTTP-%d\b`, n)).Match(text) {
			t.Errorf("no step of the contract table cites HTTP-%d", n)
		}
	}
}
