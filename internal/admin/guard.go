package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"external-server/internal/admin/reply"
	"external-server/internal/config"
	"external-server/internal/httpapi/crowd"
	"external-server/internal/httpapi/forwarded"
)

type identityKey struct{}

// who returns the identity that allow has found.
func who(r *http.Request) identity {
	i, _ := r.Context().Value(identityKey{}).(identity)
	return i
}

// allow lets through who has the role, as long as not too many of them ask at a
// time. Only who is let through takes a place: strangers cannot take them all.
func (s *Server) allow(role config.Role, next http.HandlerFunc) http.Handler {
	return s.identified(role, func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.requests <- struct{}{}:
		default:
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, "too many requests at a time")
			return
		}
		free := func() { <-s.requests }
		defer func() { free() }()
		defer crowd.Hold(r.Context())()
		// A failure to set a limit means that the connection has none to set.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestTimeout))
		release := func() { free(); free = func() {} } // a stream counts as a stream only
		next(w, r.WithContext(context.WithValue(r.Context(), releaseKey{}, release)))
	})
}

// identified lets through who has the role.
func (s *Server) identified(role config.Role, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, refused := s.access.Load().identify(r)
		if refused != "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="external-server"`)
			fail(w, http.StatusUnauthorized, refused)
			return
		}
		if !i.may(role) {
			fail(w, http.StatusForbidden, "this needs the role "+string(role)+"; this request has the role "+string(i.role))
			return
		}
		if role == config.RoleOperate {
			if refused := i.mayChange(r); refused != "" {
				fail(w, http.StatusForbidden, refused)
				return
			}
			s.log.Info("operator", slog.String("request", r.Method+" "+r.URL.EscapedPath()), slog.String("token", i.name), slog.String("from", r.RemoteAddr))
		}
		next(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, i)))
	})
}

// probe lets through, besides who may read, the probes of this machine. Probes take
// no place: an endpoint that is busy is alive.
func (s *Server) probe(next http.HandlerFunc) http.HandlerFunc {
	open := s.identified(config.RoleRead, next)
	return func(w http.ResponseWriter, r *http.Request) {
		if _, given := bearer(r); !given && fromHere(r) && forwarded.By(r) == "" && s.access.Load().ours(r.Host) {
			next(w, r)
			return
		}
		open.ServeHTTP(w, r)
	}
}

// guard is around everything: headers, sizes, times, requests of other sites. What
// needs no place, such as the files of the dashboard and refusals, is written soon or
// not at all.
func (s *Server) guard(next http.Handler) http.Handler {
	sites := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply.Secure(w.Header(), s.opts.Config.TLS != nil, s.access.Load().images)
		// A failure to set a limit means that the connection has none to set.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(briefTimeout))
		if err := sites.Check(r); err != nil {
			fail(w, http.StatusForbidden, "requests of other sites change nothing here")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(&problems{ResponseWriter: w}, r)
	})
}

type releaseKey struct{}

// problems turns the plain texts of the mux and of libraries into problem
// details.
type problems struct {
	http.ResponseWriter
	plain    bool // the text is meant as it is
	replaced bool
}

// Unwrap serves http.ResponseController.
func (p *problems) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *problems) WriteHeader(status int) {
	if status >= 400 && !p.plain && strings.HasPrefix(p.Header().Get("Content-Type"), "text/plain") {
		p.replaced = true
		detail := ""
		switch status {
		case http.StatusNotFound:
			detail = "no such resource; GET /api/v1/openapi.json lists what there is"
		case http.StatusMethodNotAllowed:
			detail = "allowed: " + p.Header().Get("Allow")
		}
		p.Header().Del("Content-Length")
		fail(p.ResponseWriter, status, detail)
		return
	}
	p.ResponseWriter.WriteHeader(status)
}

func (p *problems) Write(b []byte) (int, error) {
	if p.replaced {
		return len(b), nil
	}
	return p.ResponseWriter.Write(b)
}
