package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/keys"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// request makes one request over the network and returns code and body.
func request(t testing.TB, s *Server, method, target, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Addr().String()+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	response, err := testClient(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer), response.Header
}

func TestBadRequestsAreExplained(t *testing.T) {
	s := startServer(t, Options{MaxBody: 10_000})
	const status = "/v2/protocol/status/company/car"
	good := message(1, 1, "r", "n", "STATUS", `{}`)
	with := func(old, new string) string { return "[" + good + "," + strings.Replace(good, old, new, 1) + "]" }
	for name, c := range map[string]struct {
		method, target, body string
		code                 int
		want                 string
	}{
		"empty body":          {"POST", status, " \n", 400, "the body is empty"},
		"no JSON":             {"POST", status, "hello", 400, "at byte 1"},
		"half":                {"POST", status, `[{"device_id":`, 400, "ends too early"},
		"object":              {"POST", status, good, 400, "JSON object; expected an array"},
		"null":                {"POST", status, "null", 400, "null; expected an array"},
		"trailing":            {"POST", status, "[" + good + "] []", 400, "something after the JSON array"},
		"not UTF-8":           {"POST", status, "[\"\xff\"]", 400, "not UTF-8"},
		"a number as message": {"POST", status, "[" + good + ",7]", 400, "[1].(message) is the number 7"},
		"null as message":     {"POST", status, "[null]", 400, "[0].(message) is null; expected an object"},
		"no device":           {"POST", status, `[{"payload":{}}]`, 400, "[0].device_id is missing"},
		"device of text":      {"POST", status, `[{"device_id":"x","payload":{}}]`, 400, "[0].device_id is the string \"x\"; expected an object"},
		"no payload":          {"POST", status, `[{"device_id":{}}]`, 400, "[0].payload is missing"},
		"module missing":      {"POST", status, with(`"module_id":1,`, ``), 400, "[1].device_id.module_id is missing"},
		"module text":         {"POST", status, with(`"module_id":1`, `"module_id":"1"`), 400, "[1].device_id.module_id is the string \"1\"; expected an integer"},
		"module fraction":     {"POST", status, with(`"module_id":1`, `"module_id":1.5`), 400, "[1].device_id.module_id is the number 1.5"},
		"module negative":     {"POST", status, with(`"module_id":1`, `"module_id":-1`), 400, "[1].device_id.module_id is -1"},
		"module huge":         {"POST", status, with(`"module_id":1`, `"module_id":99999999999999999999`), 400, "[1].device_id.module_id"},
		"type null":           {"POST", status, with(`"type":1`, `"type":null`), 400, "[1].device_id.type is null"},
		"member in capitals":  {"POST", status, with(`"type"`, `"Type"`), 400, "[1].device_id.type is missing"},
		"role empty":          {"POST", status, with(`"role":"r"`, `"role":""`), 400, `[1].device_id.role is ""`},
		"role capital":        {"POST", status, with(`"role":"r"`, `"role":"Role"`), 400, "[1].device_id.role"},
		"role long":           {"POST", status, with(`"role":"r"`, `"role":"`+strings.Repeat("X", 500)+`"`), 400, "…"},
		"name NUL":            {"POST", status, with(`"name":"n"`, `"name":"\u0000"`), 400, "[1].device_id.name"},
		"name number":         {"POST", status, with(`"name":"n"`, `"name":1`), 400, "[1].device_id.name is the number 1"},
		"encoding":            {"POST", status, with(`"JSON"`, `"json"`), 400, `[1].payload.encoding is "json"`},
		"message type":        {"POST", status, with(`"STATUS"`, `"status"`), 400, `[1].payload.message_type is "status"`},
		"command as status":   {"POST", status, with(`"STATUS"`, `"COMMAND"`), 400, "commands go to /command"},
		"status as command":   {"POST", strings.Replace(status, "status", "command", 1), "[" + good + "]", 400, "statuses go to /status"},
		"data missing":        {"POST", status, with(`,"data":{}`, ``), 400, "[1].payload.data is missing"},
		"data null":           {"POST", status, with(`"data":{}`, `"data":null`), 400, "[1].payload.data must be an object, an array or a string"},
		"data boolean":        {"POST", status, with(`"data":{}`, `"data":true`), 400, "[1].payload.data must be"},
		"data deep":           {"POST", status, with(`"data":{}`, `"data":`+strings.Repeat("[", 129)+strings.Repeat("]", 129)), 400, "nested deeper than"},
		"body deep":           {"POST", status, strings.Repeat("[", 9000), 400, "nested deeper"},
		"timestamp text":      {"POST", status, with(`{"device_id"`, `{"timestamp":"now","device_id"`), 400, "[1].timestamp is the string"},
		"timestamp null":      {"POST", status, with(`{"device_id"`, `{"timestamp":null,"device_id"`), 400, "[1].timestamp is null"},
		"lone surrogate":      {"POST", status, with(`"data":{}`, `"data":{"a":"\ud83d\ude00 \ud800x"}`), 400, `[1].payload.data contains the lone surrogate \ud800`},
		"low surrogate":       {"POST", status, with(`"data":{}`, `"data":["\udc00"]`), 400, `the lone surrogate \udc00`},
		"surrogate as member": {"POST", status, with(`"data":{}`, `"data":{"\uDBFF":1}`), 400, `the lone surrogate \udbff`},
		"surrogate in a name": {"POST", status, with(`"name":"n"`, `"name":"\ud800"`), 400, `[1].device_id.name contains the lone surrogate`},
		"number too large":    {"POST", status, with(`"data":{}`, `"data":[1,-1e400]`), 400, `the number -1e400, which is beyond the range of a double`},
		"too large":           {"POST", status, "[" + strings.Repeat(" ", 10_000) + "]", 413, "larger than 10000 bytes"},
		"company":             {"GET", "/v2/protocol/status/Company/car", "", 400, "company name \"Company\" does not match"},
		"car":                 {"POST", "/v2/protocol/command/company/a%20b", "[]", 400, "car name \"a b\" does not match"},
		"more than a car":     {"GET", "/v2/protocol/status/company/car/more", "", 404, "something after the car"},
		"slash behind a car":  {"GET", "/v2/protocol/status/company/car/", "", 404, "something after the car"},
		"empty company":       {"GET", "/v2/protocol/status//car", "", 404, "the company or the car is missing"},
		"since":               {"GET", status + "?since=1.5", "", 400, "since is \"1.5\"; expected an integer"},
		"since twice":         {"GET", status + "?since=x&since=2", "", 400, "since is \"x\""},
		"wait as number":      {"GET", status + "?wait=1", "", 400, "wait is \"1\"; expected true or false"},
		"since empty":         {"GET", status + "?since=", "", 400, "since is \"\""},
		"since huge":          {"GET", status + "?since=99999999999999999999", "", 400, "since"},
		"wait":                {"GET", status + "?wait=yes", "", 400, "wait is \"yes\"; expected true or false"},
		"module_id":           {"GET", "/v2/protocol/available-devices/company/car?module_id=-1", "", 400, "module_id is \"-1\""},
		"query":               {"GET", status + "?since=%zz", "", 400, "query string is malformed"},
		"no car":              {"GET", "/v2/protocol/status/company", "", 404, "the company or the car is missing"},
		"no company":          {"GET", "/v2/protocol/status", "", 404, "company and car are missing"},
		"no route":            {"GET", "/v2/protocol/stati/company/car", "", 404, "openapi.json"},
		"other path":          {"GET", "/favicon.ico", "", 404, "/v2/protocol"},
		"method":              {"DELETE", status, "", 405, "allowed are GET, HEAD, POST"},
		"no file to post to":  {"POST", "/", "[]", 405, "allowed are GET, HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body, header := request(t, s, c.method, c.target, c.body)
			var problem httpapi.Error
			if err := json.Unmarshal([]byte(body), &problem); err != nil {
				t.Fatalf("%d %s: %v", code, body, err)
			}
			if code != c.code || problem.Status != code || problem.Title != http.StatusText(code) || problem.Type != "about:blank" || !strings.Contains(problem.Detail, c.want) {
				t.Errorf("%d %s; expected %d with %q", code, body, c.code, c.want)
			}
			if len(problem.Detail) > 400 {
				t.Errorf("the detail has %d bytes", len(problem.Detail))
			}
			if got := header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %q", got)
			}
			if code == 405 && header.Get("Allow") == "" {
				t.Error("no Allow header")
			}
		})
	}
	if code, body, _ := request(t, s, "GET", status, ""); code != 404 {
		t.Errorf("something of it was stored: %d %s", code, body)
	}
}

func TestContentTypes(t *testing.T) {
	s := startServer(t, Options{})
	const target = "/v2/protocol/status/company/car"
	for contentType, want := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "": 200,
		"application/vnd.api+json": 200, "text/json+json": 415,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "application/": 415,
	} {
		if code, body, _ := request(t, s, "POST", target, "[]", "Content-Type", contentType); code != want {
			t.Errorf("%q: %d %s", contentType, code, body)
		}
	}
	if code, _, _ := request(t, s, "POST", target, "[]", "Content-Type", "", "Origin", "http://evil.example"); code != 415 {
		t.Errorf("a body without type from another origin: %d", code)
	}
	code, body, header := request(t, s, "POST", target, "[]")
	if code != 200 || header.Get("Content-Type") != "application/json" || body != "\"0 messages have been sent.\"\n" {
		t.Errorf("success: %d %q %q", code, body, header.Get("Content-Type"))
	}
	if code, body, _ := request(t, s, "POST", target, "["+message(1, 1, "r", "n", "STATUS", `{}`)+"]"); code != 200 || body != "\"1 message has been sent.\"\n" {
		t.Errorf("one message: %d %q", code, body)
	}
}

func TestAuthentication(t *testing.T) { // HTTP-2
	file := t.TempDir() + "/keys.json"
	key, err := keys.Add(file, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	log := &testlog.Buffer{}
	s := startServer(t, Options{Config: config.HTTPAPI{KeysFile: file}, Logger: log.Logger()})
	const cars = "/v2/protocol/cars"
	for _, c := range []struct {
		target string
		code   int
		want   string
		header []string
	}{
		{cars, 401, "api_key is missing", nil},
		{cars + "?api_key=", 401, "api_key is missing", nil},
		{cars + "?api_key=" + key, 200, "[]", nil},
		{cars + "?api_key=" + key + "x", 401, "not known", nil},
		{cars + "?api_key=" + key + "&api_key=" + key, 401, "more than once", nil},
		{cars + "?API_KEY=" + key, 401, "api_key is missing", nil},
		{cars, 401, "api_key is missing", []string{"api_key", key}},
		{cars, 401, "bearer tokens", []string{"Authorization", "Bearer x.y.z"}},
		{cars + "?api_key=" + key, 401, "both", []string{"Authorization", "bearer x.y.z"}},
		{cars + "?api_key=" + key + "&since=x", 400, "since", nil},
		{"/v2/protocol/status/A/b", 401, "api_key is missing", nil},
		{"/v2/protocol/openapi.json", 200, "openapi", nil},
		{"/", 200, "html", nil},
	} {
		code, body, _ := request(t, s, "GET", c.target, "", c.header...)
		if code != c.code || !strings.Contains(body, c.want) || strings.Contains(body, key) {
			t.Errorf("%s: %d %.200s; expected %d with %q", strings.ReplaceAll(c.target, key, "KEY"), code, body, c.code, c.want)
		}
	}
	if log.Count("http api request") == 0 || log.Count(key) > 0 {
		t.Errorf("%d request lines, %d with the key", log.Count("http api request"), log.Count(key))
	}
	if n := s.Stats().Requests[RequestKey{"GET /cars", 401}]; n != 8 {
		t.Errorf("%d requests counted", n)
	}
}

func TestWithoutKeysOnlyThisMachineIsServed(t *testing.T) {
	for listen, ok := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true, "0.0.0.0:0": false, ":0": false, "[::]:0": false, "192.0.2.1:0": false, "example:0": false, "nonsense": false} {
		s, err := New(t.Context(), Options{Config: config.HTTPAPI{Listen: listen, Store: apitest.TempStore(t)}})
		if ok && err != nil && strings.Contains(listen, "::1") {
			continue // a machine without IPv6
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", listen, err)
		}
		if err == nil {
			_ = s.Shutdown(t.Context())
		} else if !strings.HasPrefix(err.Error(), "http_api.listen") {
			t.Errorf("%s: error %q", listen, err)
		}
	}
	s := startServer(t, Options{})
	for host, want := range map[string]int{"localhost:8080": 200, "127.0.0.1": 200, "[::1]:80": 200, "x.localhost": 200, "evil.example": 401, "127.0.0.1.evil.example": 401, "192.0.2.7:8080": 401} {
		if code, body, _ := request(t, s, "GET", "/v2/protocol/cars", "", "Host", host); code != want {
			t.Errorf("Host %s: %d %s", host, code, body)
		}
	}
	if code, _, _ := request(t, s, "GET", "/v2/protocol/cars?api_key=any", ""); code != 200 {
		t.Errorf("any key: %d", code)
	}
}

// TestRequestsThroughAProxyAreStrangers: the connection comes from this machine, the
// request does not. With a key it is served.
func TestRequestsThroughAProxyAreStrangers(t *testing.T) {
	without := startServer(t, Options{})
	// nginx with a bare proxy_pass adds no header and speaks HTTP/1.0.
	conn, err := net.Dial("tcp", without.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /v2/protocol/cars HTTP/1.0\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("HTTP/1.0 401"))
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.0 401" {
		t.Errorf("HTTP/1.0: %q %v", line, err)
	}
	file := t.TempDir() + "/keys.json"
	key, err := keys.Add(file, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	with := startServer(t, Options{Config: config.HTTPAPI{KeysFile: file}})
	body := "[" + message(1, 1, "r", "n", "STATUS", `{}`) + "]"
	for _, header := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via"} {
		for _, method := range []string{"GET", "POST"} {
			const target = "/v2/protocol/status/company/car"
			if code, answer, _ := request(t, without, method, target, body, header, "192.0.2.1"); code != 401 || !strings.Contains(strings.ToLower(answer), "the header "+strings.ToLower(header)) {
				t.Errorf("%s with %s, without keys: %d %s", method, header, code, answer)
			}
			if code, answer, _ := request(t, with, method, target+"?api_key="+key, body, header, "192.0.2.1"); code == 401 {
				t.Errorf("%s with %s and a key: %d %s", method, header, code, answer)
			}
		}
	}
}

func TestHead(t *testing.T) {
	s := startServer(t, Options{})
	for target, want := range map[string]int{"/v2/protocol/cars": 200, "/": 200, "/v2/protocol/status/a/b": 404, "/v2/protocol/status/A/b": 400} {
		if code, body, _ := request(t, s, "HEAD", target, ""); code != want || body != "" {
			t.Errorf("%s: %d %q", target, code, body)
		}
	}
}

// TestSlowClientsAreCutOff: a client that sends its header or its body slowly
// loses its connection; one that waits longer than a request may take does not.
func TestSlowClientsAreCutOff(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{WaitTimeout: 1500 * time.Millisecond}, header: 300 * time.Millisecond, read: 600 * time.Millisecond})
	dial := func(text string) (net.Conn, *bufio.Reader) {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(testwait.Patience))
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn, bufio.NewReader(conn)
	}
	_, header := dial("POST /v2/protocol/status/a/b HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	_, body := dial("POST /v2/protocol/status/a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[")
	type line struct {
		text string
		err  error
	}
	waiting := make(chan line, 1)
	ask := func() {
		_, r := dial("GET /v2/protocol/status/a/b?wait=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
		go func() {
			text, err := r.ReadString('\n')
			waiting <- line{text, err}
		}()
	}
	ask()
	testwait.Until(t, "a request waits", func() bool {
		select {
		case l := <-waiting:
			if l.err == nil { // it has waited already
				waiting <- l
				return true
			}
			ask() // this test was too slow to send its header
		default:
		}
		return s.Stats().Waiting == 1
	})
	for name, r := range map[string]*bufio.Reader{"header": header, "body": body} {
		text, err := io.ReadAll(r)
		if err != nil || strings.Contains(string(text), " 200 ") {
			t.Errorf("slow %s: %q, %v", name, text, err)
		}
	}
	if l := <-waiting; l.err != nil || !strings.Contains(l.text, " 404 ") {
		t.Errorf("the one that waits: %q, %v", l.text, l.err)
	}
}

// TestClientThatLeavesEndsItsWait also works for HTTP/1.1, where the connection
// is all there is.
func TestClientThatLeavesEndsItsWait(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{WaitTimeout: testwait.Patience}})
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(conn, "GET /v2/protocol/status/a/b?wait=true HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the request waits", func() bool { return s.Stats().Waiting == 1 })
	_ = conn.Close()
	testwait.Until(t, "the wait ends", func() bool { return s.Stats().Waiting == 0 })
}

func TestOpenAPIDescribesTheHandler(t *testing.T) {
	s := startServer(t, Options{})
	code, body, _ := request(t, s, "GET", "/v2/protocol/openapi.json", "")
	var doc struct {
		OpenAPI string
		Servers []struct{ URL string }
		Paths   map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || code != 200 {
		t.Fatalf("%d %v", code, err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") || len(doc.Servers) != 1 || doc.Servers[0].URL != httpapi.BasePath {
		t.Errorf("openapi %s, servers %v", doc.OpenAPI, doc.Servers)
	}
	described := map[string]bool{}
	post := "[" + message(1, 1, "r", "n", "STATUS", `{}`) + "]"
	if code, body, _ := request(t, s, "POST", "/v2/protocol/status/company/car", post); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for path, methods := range doc.Paths {
		described[strings.TrimSuffix(strings.TrimSuffix(path, "{company_name}/{car_name}"), "/")] = true
		for _, method := range []string{"get", "post", "put", "delete", "patch"} {
			var operation struct {
				Responses map[string]json.RawMessage
			}
			raw, documented := methods[method]
			if documented {
				if err := json.Unmarshal(raw, &operation); err != nil {
					t.Fatal(err)
				}
			}
			for car, want := range map[string]string{"car": "200", "unknown": "404", "BAD": "400"} {
				if !strings.Contains(path, "{car_name}") && car != "car" {
					continue
				}
				target := httpapi.BasePath + strings.NewReplacer("{company_name}", "company", "{car_name}", car).Replace(path)
				content := ""
				if method != "get" {
					content = "[]"
				}
				code, body, _ := request(t, s, strings.ToUpper(method), target, content)
				if documented == (code == 405) && car != "BAD" {
					t.Errorf("%s %s: documented %v, answered %d", method, path, documented, code)
				}
				if _, ok := operation.Responses[fmt.Sprint(code)]; documented && !ok {
					t.Errorf("%s %s: the answer %d %s is not documented", method, path, code, body)
				}
				if _, ok := operation.Responses[want]; method == "get" && documented && !ok {
					t.Errorf("%s %s: %s is not documented", method, path, want)
				}
			}
		}
	}
	for name := range routes {
		if !described["/"+strings.TrimSuffix(name, "/")] {
			t.Errorf("%s is not documented", name)
		}
	}
	// Every reference leads somewhere.
	var tree any
	_ = json.Unmarshal([]byte(body), &tree)
	for _, part := range strings.Split(body, `"$ref": "#/`)[1:] {
		at := tree
		for name := range strings.SplitSeq(part[:strings.Index(part, `"`)], "/") {
			m, _ := at.(map[string]any)
			at = m[name]
		}
		if at == nil {
			t.Errorf("the reference %s leads nowhere", part[:strings.Index(part, `"`)])
		}
	}
}

// TestPageIsSelfContained: the page loads nothing from other hosts.
func TestPageIsSelfContained(t *testing.T) {
	s := startServer(t, Options{})
	code, page, header := request(t, s, "GET", "/", "")
	if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %v", code, header)
	}
	for _, part := range []string{"http://", "https://", "src=", "@import", "url("} {
		if strings.Contains(page, part) {
			t.Errorf("the page contains %q", part)
		}
	}
	for name, rt := range routes {
		if !rt.open && !strings.Contains(page, strings.TrimSuffix(name, "/")) {
			t.Errorf("the page does not offer %s", name)
		}
	}
}

// TestHandlerSurvivesConcurrentUse mixes everything; the race detector judges.
func TestHandlerSurvivesConcurrentUse(t *testing.T) {
	s := startServer(t, Options{Config: config.HTTPAPI{WaitTimeout: 5 * time.Millisecond}})
	done := make(chan struct{})
	for g := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 40 {
				target := fmt.Sprintf("/v2/protocol/%s/company/car_%d?wait=%v", []string{"status", "command", "available-devices"}[i%3], (g+i)%3, i%2 == 0)
				r := httptest.NewRequest([]string{"GET", "POST"}[i%2], target, strings.NewReader("["+message(1, g%2, "r", "n", []string{"STATUS", "COMMAND"}[i%2], `{}`)+"]"))
				r.Host = "localhost"
				w := httptest.NewRecorder()
				s.Handler().ServeHTTP(w, r)
				if w.Code >= 500 {
					t.Errorf("%s: %d %s", target, w.Code, w.Body)
				}
				_ = s.Stats()
			}
		}()
	}
	for range 8 {
		<-done
	}
}
