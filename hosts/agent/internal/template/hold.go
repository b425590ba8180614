package template

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/palisade-host/palisade/hosts/agent/internal/enrollment"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

const (
	// interval is the time between two messages.
	interval = time.Second
	// pause is the time until the port is tried again while nobody has its other end open.
	pause = 50 * time.Millisecond
	// minimumSeed is the strength of the kernel's random number generator, in bytes.
	minimumSeed = 32
	maximumLine = 64 << 10
)

// hasPort reports whether one of the files contains this port name.
func hasPort(pattern, name string) (bool, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return false, err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(content)) == name {
			return true, nil
		}
	}
	return false, nil
}

// hold reports the state of the host until it is released.
func hold(ctx context.Context, port enrollment.Port, state func(context.Context) *agentv1.TemplateWaiting) (*agentv1.CloneRelease, error) {
	var pending []byte
	buffer := make([]byte, 4<<10)
	for ctx.Err() == nil {
		waiting := state(ctx)
		if waiting.GetReady() {
			// Everything written so far has to be on the disk of every clone.
			syscall.Sync()
		}
		next := time.Now().Add(interval)
		if err := send(port, waiting, next); err != nil && !isQuiet(err) {
			return nil, err
		}
		if err := port.SetReadDeadline(next); err != nil {
			return nil, err
		}
		for time.Now().Before(next) && ctx.Err() == nil {
			count, err := port.Read(buffer)
			pending = append(pending, buffer[:count]...)
			for {
				end := bytes.IndexByte(pending, '\n')
				if end < 0 {
					break
				}
				var release agentv1.CloneRelease
				// A line that is not a release is the rest of an older message.
				if protojson.Unmarshal(pending[:end], &release) == nil && len(release.GetSeed()) >= minimumSeed && release.GetTime() != nil {
					return &release, nil
				}
				pending = pending[end+1:]
			}
			if len(pending) > maximumLine {
				pending = nil
			}
			if errors.Is(err, io.EOF) {
				// Nobody has the other end open.
				pending = nil
				time.Sleep(pause)
			} else if err != nil && !isQuiet(err) {
				return nil, err
			}
		}
	}
	return nil, ctx.Err()
}

// send sends a message. The line feed before it ends the rest of a message that was sent only in part.
func send(port enrollment.Port, message *agentv1.TemplateWaiting, deadline time.Time) error {
	line, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	if err := port.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, err = port.Write([]byte("\n" + string(line) + "\n"))
	return err
}

// isQuiet reports whether the other end did not read or write in time.
func isQuiet(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EAGAIN)
}
