package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"external-server/internal/support/servertest"
	"external-server/internal/support/testneed"
	"external-server/internal/support/testwait"
)

// tab is one browser with one page.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu     sync.Mutex
	errors []string // exceptions, and what the console calls an error
	// expected are parts of errors that the test itself causes.
	expected []string
}

func chromium(t testing.TB) string {
	t.Helper()
	return testneed.Tool(t, "chromium", "chromium", "chromium-browser", "google-chrome")
}

// newTab starts a browser of its own that ends with the test. An exception on the
// page, or an error in its console, fails the test.
func newTab(t testing.TB, width, height int64) *tab {
	t.Helper()
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)),
		chromedp.NoSandbox, // tests may run as root
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(testwait.Patience),
	)
	parent, cancel := context.WithTimeout(context.Background(), 5*testwait.Patience) // a machine that is busy
	allocator, cancelAllocator := chromedp.NewExecAllocator(parent, flags...)
	b := &tab{t: t}
	ctx, cancelTab := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}), chromedp.WithListener(b.listen))
	b.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() {
			b.picture("failed-" + strings.ReplaceAll(t.Name(), "/", "-"))
		}
		_ = chromedp.Cancel(ctx)
		cancelTab()
		cancelAllocator()
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, text := range b.errors {
			if !b.isExpected(text) {
				t.Errorf("the page has an error: %s", text)
			}
		}
	})
	call(b, cdplog.Enable, cdp.Empty{})
	call(b, cdpruntime.Enable, cdp.Empty{})
	b.resize(width, height)
	return b
}

func (b *tab) isExpected(text string) bool {
	for _, part := range b.expected {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// expect says that errors with that part are caused by the test.
func (b *tab) expect(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expected = append(b.expected, part)
}

func (b *tab) listen(ev any) {
	text := ""
	switch ev := ev.(type) {
	case *cdpruntime.EventExceptionThrown:
		text = ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
	case *cdpruntime.EventConsoleAPICalled:
		if ev.Type == cdpruntime.ConsoleAPICalledTypeError {
			for _, a := range ev.Args {
				text += a.Description + string(a.Value) + " "
			}
		}
	case *cdplog.EventEntryAdded: // also violations of the content security policy
		if ev.Entry.Level == cdplog.EntryLevelError {
			text = ev.Entry.Text + " " + ev.Entry.URL
		}
	}
	if text != "" {
		b.mu.Lock()
		b.errors = append(b.errors, text)
		b.mu.Unlock()
	}
}

// call runs a command of the browser.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	out, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return out
}

func (b *tab) do(what string, action chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, action); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.do("open "+url, chromedp.Navigate(url))
}

// eval returns the value of a JavaScript expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// until waits until a JavaScript expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	deadline := time.Now().Add(testwait.Patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		var exception *chromedp.ExceptionError // the page is not that far
		if err != nil && !errors.As(err, &exception) {
			b.t.Fatalf("%s: %v", expression, err)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText.slice(0, 3000)"))
			b.t.Fatalf("did not become true within %v: %s\nlast error: %v\nthe page says:\n%s", testwait.Patience, expression, err, text)
		}
		<-tick.C
	}
}

// says waits until the element's text contains the words.
func (b *tab) says(selector, words string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, words))
}

// polls waits until the page has asked the server n times more what is on every page.
func (b *tab) polls(n int) {
	b.t.Helper()
	eval[chromedp.Void](b, "performance.clearResourceTimings()")
	b.until(fmt.Sprintf(`performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/api/v1/server")).length >= %d`, n))
}

// press waits for the element that the expression names, and clicks it in the same moment: a list is drawn anew now and then.
func (b *tab) press(expression string) {
	b.t.Helper()
	b.until("((e) => { e?.click(); return e })(" + expression + ")")
}

// button names a visible button by its words.
func button(words string) string {
	return fmt.Sprintf("[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && b.innerText.trim().startsWith(%q)).at(-1)", words)
}

func (b *tab) keys(text string) {
	b.t.Helper()
	b.do("keys "+text, chromedp.KeyEvent(text))
}

// media emulates what the user prefers, such as prefers-color-scheme.
func (b *tab) media(name, value string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
}

func (b *tab) resize(width, height int64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500})
}

// picture saves what is seen under artifacts/dashboard.
func (b *tab) picture(name string) {
	b.t.Helper()
	seen, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng})
	if err != nil {
		b.t.Logf("no picture %s: %v", name, err)
		return
	}
	raw := seen.Data
	dir := filepath.Join(servertest.Root(), "artifacts", "dashboard")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if img, err := png.Decode(bytes.NewReader(raw)); err == nil {
		var small bytes.Buffer
		if (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, img) == nil && small.Len() < len(raw) {
			raw = small.Bytes()
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fits fails the test when the page is wider than the window.
func (b *tab) fits() {
	b.t.Helper()
	if over := eval[string](b, `(() => {
		const w = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= w) return "";
		return [...document.querySelectorAll("main *, header *")].filter((e) => e.getBoundingClientRect().right > w + 1).slice(0, 5).map((e) => e.tagName + "." + e.className).join(", ") || "?";
	})()`); over != "" {
		b.t.Errorf("the page is wider than its window because of %s", over)
	}
}
