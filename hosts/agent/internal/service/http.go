package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ShutdownTimeout is how long calls in progress may take after SIGTERM.
const ShutdownTimeout = 5 * time.Second

// ServeUnix serves handler over plain HTTP/1.1 and HTTP/2 on a unix socket until ctx ends.
func ServeUnix(ctx context.Context, listener net.Listener, handler http.Handler) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
		// Streams end with the process, so that they do not delay its shutdown.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	return Serve(ctx, server, func() error { return server.Serve(listener) })
}

// Serve runs serve until it fails or ctx ends. Then calls in progress have ShutdownTimeout to finish.
func Serve(ctx context.Context, server *http.Server, serve func() error) error {
	failed := make(chan error, 1)
	go func() { failed <- serve() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	Notify("STOPPING=1")
	deadline, cancel := context.WithTimeout(context.Background(), ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// UnixTransport returns a transport for plain HTTP/2 to the unix socket at path, whatever the URL's host.
func UnixTransport(path string) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Protocols: protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: 5 * time.Second}
			return dialer.DialContext(ctx, "unix", path)
		},
	}
}
