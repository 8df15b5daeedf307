package tlsfiles

import (
	"crypto/tls"
	"os"
	"sync"
	"time"

	"external-server/internal/config"
)

// Watched holds the settings of a listener and notices that a file changed by
// its size and modification time, which costs two or three stat calls per
// handshake.
type Watched struct {
	protocols []string

	mu      sync.Mutex
	files   config.ServerTLS
	current *tls.Config
	stamps  [3]stamp
}

type stamp struct {
	size int64
	at   time.Time
}

// Watch reads the files of a listener. Files that changed are read again at the
// next handshake; when they cannot be used, the last good ones stay in force. Nil
// files mean no TLS and give nil. The protocols are those offered to peers that ask
// for one (ALPN), the preferred first.
func Watch(files *config.ServerTLS, protocols ...string) (*Watched, error) {
	if files == nil {
		return nil, nil
	}
	w := &Watched{protocols: protocols}
	if err := w.Use(files); err != nil {
		return nil, err
	}
	return w, nil
}

// Use puts other files in force, from the next handshake on. On error, the old ones
// stay. TLS cannot be switched on or off: without Watched or files it does nothing.
func (w *Watched) Use(files *config.ServerTLS) error {
	if w == nil || files == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current != nil && w.files == *files {
		return nil
	}
	old, stamps := w.files, stat(files)
	w.files = *files
	fresh, err := w.read()
	if err != nil {
		w.files = old
		return err
	}
	w.current, w.stamps = fresh, stamps
	return nil
}

// Config returns the settings for the listener; nil for a nil Watched.
func (w *Watched) Config() *tls.Config {
	if w == nil {
		return nil
	}
	out := w.latest().Clone()
	out.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return w.latest(), nil }
	return out
}

// read reads the files; the caller holds mu.
func (w *Watched) read() (*tls.Config, error) {
	cert, err := readPair(w.files.CertFile, w.files.KeyFile)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: w.protocols}
	if w.files.ClientCAFile != "" {
		pool, err := readCA(w.files.ClientCAFile)
		if err != nil {
			return nil, err
		}
		out.ClientCAs, out.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return out, nil
}

func stat(files *config.ServerTLS) (out [3]stamp) {
	for i, path := range []string{files.CertFile, files.KeyFile, files.ClientCAFile} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			out[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return out
}

// latest returns the newest settings that could be read.
func (w *Watched) latest() *tls.Config {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := stat(&w.files)
	if now == w.stamps {
		return w.current
	}
	// A certificate may be in place before its key: that pair does not load, the
	// old one stays, and the key's own change brings us here again.
	if fresh, err := w.read(); err == nil {
		w.current = fresh
		w.stamps = now
	}
	return w.current
}
