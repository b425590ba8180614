package service

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestErrorLog(t *testing.T) {
	for message, level := range map[string]string{
		"http2: received GOAWAY [FrameHeader GOAWAY len=8], starting graceful shutdown":                                          "DEBUG",
		"http: TLS handshake error from 10.0.2.2:40000: EOF":                                                                     "DEBUG",
		"http: TLS handshake error from 10.0.2.2:40000: read tcp 10.0.2.15:8443->10.0.2.2:40000: read: connection reset by peer": "DEBUG",
		"http2: server: error reading preface from client 10.0.2.2:40000: read tcp: connection reset by peer":                    "DEBUG",
		"httputil: ReverseProxy read error during body copy: context canceled":                                                   "DEBUG",
		// A possible attack or a mistake of the agent remains a warning.
		"http: TLS handshake error from 10.0.2.2:40000: tls: client didn't provide a certificate":                                  "WARN",
		"http: TLS handshake error from 10.0.2.2:40000: tls: failed to verify certificate: x509: certificate signed by EOF Inc.":   "WARN",
		"http2: server connection error from 10.0.2.2:40000: connection error: PROTOCOL_ERROR":                                     "WARN",
		"http2: panic serving 10.0.2.2:40000: runtime error: index out of range\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:1": "WARN",
		"http: Accept error: accept tcp [::]:8443: accept4: too many open files; retrying in 5ms":                                  "WARN",
	} {
		var output bytes.Buffer
		ErrorLog(slog.New(slog.NewTextHandler(&output, &slog.HandlerOptions{Level: slog.LevelDebug}))).Print(message)
		if !strings.Contains(output.String(), "level="+level+" ") || strings.Count(output.String(), "level=") != 1 {
			t.Errorf("%s\nexpected once at level %s, got %s", message, level, output.String())
		}
	}
}
