package tlsfiles

import (
	"crypto/tls"
	"os"
	"sync"
	"time"

	"external-server/internal/config"
)

// watched holds the settings of a listener and notices that a file changed by
// its size and modification time, which costs two or three stat calls per
// handshake.
type watched struct {
	files     config.ServerTLS
	protocols []string

	mu      sync.Mutex
	current *tls.Config
	stamps  [3]stamp
}

type stamp struct {
	size int64
	at   time.Time
}

func (w *watched) read() (*tls.Config, error) {
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

func (w *watched) stat() (out [3]stamp) {
	for i, path := range []string{w.files.CertFile, w.files.KeyFile, w.files.ClientCAFile} {
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
func (w *watched) latest() *tls.Config {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.stat()
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
