package service

import (
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
)

// departure matches what net/http and httputil log when a client closes its connection, as every client does at some
// time. HTTP/2 clients that cancel their calls send GOAWAY, whose code is not in the line. Others just close the
// connection.
var departure = regexp.MustCompile(
	`^http2: received GOAWAY |` +
		`(\bEOF|connection reset by peer|broken pipe|use of closed network connection|context canceled|client disconnected)$`)

// ErrorLog returns a log for http.Server and httputil.ReverseProxy. Each line is a warning, except for a client that
// closes its connection, which is logged for debugging.
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
