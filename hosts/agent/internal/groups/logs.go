package groups

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maximumLogSize is the size at which a container's log file is rotated. One rotated file is kept.
	maximumLogSize = 10 << 20
	rotatedSuffix  = ".1"
	logPoll        = 200 * time.Millisecond
)

// logLine is one line of a container's output.
type logLine struct {
	time    time.Time
	stream  string
	content []byte
}

// parseLogLine parses CRI's format: time, stream, tag (P for a part of a line, F for its end), content.
func parseLogLine(line []byte) (parsed logLine, partial, ok bool) {
	fields := bytes.SplitN(line, []byte{' '}, 4)
	if len(fields) < 3 {
		return logLine{}, false, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(fields[0]))
	if err != nil {
		return logLine{}, false, false
	}
	parsed = logLine{time: at, stream: string(fields[1])}
	if len(fields) == 4 {
		parsed.content = append([]byte(nil), fields[3]...)
	}
	return parsed, bytes.HasPrefix(fields[2], []byte("P")), true
}

// lineReader splits a growing log file into lines, and joins lines that were written in parts.
type lineReader struct {
	pending []byte
	parts   map[string]*logLine
}

func (r *lineReader) feed(chunk []byte, emit func(logLine) error) error {
	r.pending = append(r.pending, chunk...)
	for {
		end := bytes.IndexByte(r.pending, '\n')
		if end < 0 {
			return nil
		}
		line, partial, ok := parseLogLine(r.pending[:end])
		r.pending = r.pending[end+1:]
		if !ok {
			continue
		}
		if r.parts == nil {
			r.parts = map[string]*logLine{}
		}
		if started := r.parts[line.stream]; started != nil {
			started.content = append(started.content, line.content...)
			line = *started
		}
		if partial && len(line.content) < maximumLogSize {
			r.parts[line.stream] = &line
			continue
		}
		delete(r.parts, line.stream)
		if err := emit(line); err != nil {
			return err
		}
	}
}

type logOptions struct {
	follow bool
	tail   int
	since  time.Time
	// finished reports whether no more output can come.
	finished func() bool
}

// streamLog sends the lines of the log at path, beginning with the rotated file. A missing file counts as empty.
func streamLog(ctx context.Context, path string, options logOptions, send func(logLine) error) error {
	var kept []logLine
	collect := func(line logLine) error {
		if line.time.Before(options.since) {
			return nil
		}
		if options.tail <= 0 {
			return send(line)
		}
		if kept = append(kept, line); len(kept) > 2*options.tail {
			kept = append([]logLine(nil), kept[len(kept)-options.tail:]...)
		}
		return nil
	}
	reader := &lineReader{}
	if old, err := os.Open(path + rotatedSuffix); err == nil {
		err := readAll(old, reader, collect)
		old.Close()
		if err != nil {
			return err
		}
	}
	var file *os.File
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	open := func() error {
		opened, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			file = opened
		}
		return err
	}
	if err := open(); err != nil {
		return err
	}
	if file != nil {
		if err := readAll(file, reader, collect); err != nil {
			return err
		}
	}
	for _, line := range kept[max(0, len(kept)-options.tail):] {
		if err := send(line); err != nil {
			return err
		}
	}
	options.tail = 0
	for options.follow {
		// finished is called before the last read, so that nothing written until then is missed.
		finished := options.finished()
		if file != nil {
			if err := readAll(file, reader, collect); err != nil {
				return err
			}
		}
		if finished {
			return nil
		}
		if file == nil || isRotated(file, path) {
			if file != nil {
				if err := readAll(file, reader, collect); err != nil {
					return err
				}
				file.Close()
				file = nil
			}
			if err := open(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPoll):
		}
	}
	return nil
}

func readAll(file *os.File, reader *lineReader, emit func(logLine) error) error {
	buffer := make([]byte, 64<<10)
	for {
		count, err := file.Read(buffer)
		if count > 0 {
			if err := reader.feed(buffer[:count], emit); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func isRotated(file *os.File, path string) bool {
	current, err := os.Stat(path)
	if err != nil {
		return false
	}
	opened, err := file.Stat()
	return err == nil && !os.SameFile(opened, current)
}

// createLog creates a container's log file before containerd opens it, so that the file belongs to this role and not to
// root.
func (g *group) createLog(container string) error {
	if err := os.MkdirAll(g.logDirectory(), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(g.logDirectory(), logFile(container)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

// rotateLogs rotates log files that have grown too large, and makes containerd open new ones.
func (g *group) rotateLogs(ctx context.Context, desired *record, observed *observation) {
	for _, container := range desired.spec.GetContainers() {
		status := observed.containers[container.GetName()]
		if status == nil || status.State != runtimev1.ContainerState_CONTAINER_RUNNING {
			continue
		}
		path := filepath.Join(g.logDirectory(), logFile(container.GetName()))
		info, err := os.Stat(path)
		if err != nil || info.Size() < g.manager.options.MaximumLogSize {
			continue
		}
		if err := os.Rename(path, path+rotatedSuffix); err != nil {
			g.logger.Warn("log is not turned over", "container", container.GetName(), "error", err)
			continue
		}
		err = g.createLog(container.GetName())
		if err == nil {
			_, err = g.manager.runtime.ReopenContainerLog(ctx, &runtimev1.ReopenContainerLogRequest{ContainerId: status.Id})
		}
		if err != nil {
			g.logger.Warn("log is not turned over", "container", container.GetName(), "error", g.clean(err.Error()))
			// Otherwise containerd would continue to write into the file that the next rotation replaces.
			_ = os.Rename(path+rotatedSuffix, path)
		}
	}
}
