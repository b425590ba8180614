package service

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"

	"connectrpc.com/connect"
)

// Proxy forwards calls to another role unchanged. It forwards streams without delay.
func Proxy(role, socket string, logger *slog.Logger) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(&url.URL{Scheme: "http", Host: "role"})
		},
		Transport:     UnixTransport(socket),
		FlushInterval: -1,
		ErrorLog:      ErrorLog(logger),
		ErrorHandler: func(writer http.ResponseWriter, request *http.Request, err error) {
			if request.Context().Err() != nil {
				return
			}
			writer.Header().Set("Content-Type", "application/json")
			writer.WriteHeader(http.StatusServiceUnavailable)
			// This is the Connect protocol's error for unary calls. Streams and gRPC map the HTTP status to the same
			// code.
			_ = json.NewEncoder(writer).Encode(map[string]string{
				"code":    connect.CodeUnavailable.String(),
				"message": "role " + role + " does not answer: " + err.Error(),
			})
		},
	}
}
