package service

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
)

// departure matches what net/http and httputil log when a client ends its connection, as each does at some time: HTTP/2 clients that
// cancel their calls say GOAWAY, whose code is not in the line, others just close.
var departure = regexp.MustCompile(
	`^http2: received GOAWAY |` +
		`(\bEOF|connection reset by peer|broken pipe|use of closed network connection|context canceled|client disconnected)$`)

// ErrorLog returns a log for http.Server and httputil.ReverseProxy: a warning for each line, but for the end of a connection by its
// client, which is for debugging only.
func ErrorLog(logger *slog.Logger) *log.Logger {
	return log.New(errorLog{logger}, "", 0)
}

type errorLog struct{ logger *slog.Logger }

func (l errorLog) Write(line []byte) (int, error) {
	message := strings.TrimRight(string(line), "\n")
	level := slog.LevelWarn
	if departure.MatchString(message) {
		level = slog.LevelDebug
	}
	l.logger.Log(context.Background(), level, message)
	return len(line), nil
}
