package groups

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestStreamLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.log")
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	line := func(second int, stream, tag, content string) string {
		return fmt.Sprintf("%s %s %s %s\n", at.Add(time.Duration(second)*time.Second).Format(time.RFC3339Nano), stream, tag, content)
	}
	write := func(path, content string) {
		t.Helper()
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(content); err != nil {
			t.Fatal(err)
		}
	}
	write(path+rotatedSuffix, line(0, "stdout", "F", "zero")+"not a log line\n")
	write(path, line(1, "stdout", "P", "o")+line(1, "stderr", "F", "oops")+line(1, "stdout", "F", "ne")+line(2, "stdout", "F", "")+line(3, "stdout", "F", "three"))

	for name, test := range map[string]struct {
		options logOptions
		want    string
	}{
		"all":   {logOptions{}, "zero,oops,one,,three"},
		"tail":  {logOptions{tail: 2}, ",three"},
		"since": {logOptions{since: at.Add(2 * time.Second)}, ",three"},
		"both":  {logOptions{since: at.Add(time.Second), tail: 3}, "one,,three"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := streamLog(context.Background(), path, test.options, func(line logLine) error {
				got = append(got, string(line.content))
				return nil
			})
			if err != nil || strings.Join(got, ",") != test.want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	t.Run("follow over a turn", func(t *testing.T) {
		var finished atomic.Bool
		lines := make(chan string, 10)
		ended := make(chan error, 1)
		go func() {
			ended <- streamLog(context.Background(), path, logOptions{follow: true, tail: 1, finished: finished.Load}, func(line logLine) error {
				lines <- string(line.content)
				return nil
			})
		}()
		if first := <-lines; first != "three" {
			t.Fatalf("%q", first)
		}
		write(path, line(4, "stdout", "F", "four"))
		if next := <-lines; next != "four" {
			t.Fatalf("%q", next)
		}
		if err := os.Rename(path, path+rotatedSuffix); err != nil {
			t.Fatal(err)
		}
		write(path, line(5, "stdout", "F", "five"))
		if next := <-lines; next != "five" {
			t.Fatalf("%q", next)
		}
		finished.Store(true)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("absent", func(t *testing.T) {
		if err := streamLog(context.Background(), path+".absent", logOptions{}, func(logLine) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestEventsAreBounded(t *testing.T) {
	var ring eventRing
	at := moment{wall: time.Now()}
	for index := range 3 * maximumEvents {
		ring.add(at, eventNormal, "Started", fmt.Sprint(index), "server")
	}
	events := ring.snapshot()
	if len(events) != maximumEvents || events[maximumEvents-1].GetMessage() != fmt.Sprint(3*maximumEvents-1) {
		t.Errorf("%d events, last %v", len(events), events[len(events)-1])
	}
	if !ring.add(at, eventWarning, "Failed", "same", "server") || ring.add(at, eventWarning, "Failed", "same", "server") {
		t.Error("a repeated warning is kept twice")
	}
}
