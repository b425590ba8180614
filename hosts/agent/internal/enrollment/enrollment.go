// Package enrollment implements the first-contact protocol of enrollment.proto over a virtio serial port, which only
// the hypervisor can open.
package enrollment

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// Interval is the time between two requests.
const Interval = 2 * time.Second

// maximumLine is the longest response that is read, in bytes.
const maximumLine = 256 << 10

// Port is a serial port with deadlines, such as *os.File and net.Conn.
type Port interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// OpenDevice returns a function that opens a virtio serial port in non-blocking mode, because a write to a port without
// a listener would never return.
func OpenDevice(path string) func() (Port, error) {
	return func() (Port, error) {
		return os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	}
}

// Loop requests certificates whenever the identity needs one, until ctx ends.
type Loop struct {
	Identity *identity.Identity
	Open     func() (Port, error)
	Logger   *slog.Logger
	// Interval is the time between requests; 0 means the default.
	Interval time.Duration
	// Enrolled is called after each installed certificate; may be nil.
	Enrolled func()

	lastError string
}

// Run returns when ctx ends. After an error of the port it tries again. It logs each error once.
func (l *Loop) Run(ctx context.Context) {
	interval := l.Interval
	if interval == 0 {
		interval = Interval
	}
	for ctx.Err() == nil {
		if l.Identity.RequestReason() != "" {
			l.report(l.converse(ctx, interval))
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}

// report logs an error when it differs from the last one, because a missing listener is normal and can last.
func (l *Loop) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != l.lastError {
		l.Logger.Warn("enrollment waits", "error", text)
	}
	l.lastError = text
}

// converse keeps the port open and sends requests until a certificate is installed.
func (l *Loop) converse(ctx context.Context, interval time.Duration) error {
	port, err := l.Open()
	if err != nil {
		return err
	}
	defer port.Close()

	var pending []byte
	broken := false
	for ctx.Err() == nil {
		reason := l.Identity.RequestReason()
		if reason == "" {
			return nil
		}
		line, err := l.request(reason)
		if err != nil {
			return err
		}
		next := time.Now().Add(interval)
		if broken {
			// The line feed ends the rest of a request that was sent only in part.
			line = append([]byte{'\n'}, line...)
		}
		if err := port.SetWriteDeadline(next); err != nil {
			return err
		}
		written, err := port.Write(line)
		broken = written != 0 && written != len(line)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if pending, err = l.listen(ctx, port, pending, next); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) request(reason string) ([]byte, error) {
	request, err := l.Identity.CertificateRequest()
	if err != nil {
		return nil, err
	}
	line, err := protojson.Marshal(&agentv1.EnrollmentRequest{
		HostId:             l.Identity.HostID(),
		CertificateRequest: request,
		Reason:             reason,
		HostTime:           timestamppb.New(l.Identity.Clock().System()),
	})
	return append(line, '\n'), err
}

// listen reads responses until the next request is due or a response was accepted.
func (l *Loop) listen(ctx context.Context, port Port, pending []byte, until time.Time) ([]byte, error) {
	buffer := make([]byte, 16<<10)
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(until) {
			return pending, nil
		}
		// Reads are short, so that the end of ctx is noticed.
		readDeadline := now.Add(250 * time.Millisecond)
		if readDeadline.After(until) {
			readDeadline = until
		}
		if err := port.SetReadDeadline(readDeadline); err != nil {
			return pending, err
		}
		count, err := port.Read(buffer)
		pending = append(pending, buffer[:count]...)
		for {
			end := bytes.IndexByte(pending, '\n')
			if end < 0 {
				break
			}
			line := bytes.TrimSpace(pending[:end])
			pending = pending[end+1:]
			if len(line) > 0 && l.handleResponse(line) {
				return nil, nil
			}
		}
		if len(pending) > maximumLine {
			l.Logger.Warn("enrollment answer refused", "error", "line too long", "bytes", len(pending))
			pending = nil
		}
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, io.EOF):
			// Nobody has the other end open, so the rest of a partial response will not come.
			pending = nil
			time.Sleep(time.Until(readDeadline))
		default:
			return pending, err
		}
	}
	return pending, nil
}

// handleResponse handles one response. It returns true when the response contained a certificate.
func (l *Loop) handleResponse(line []byte) bool {
	var response agentv1.EnrollmentResponse
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line, &response); err != nil {
		l.Logger.Warn("enrollment answer refused", "error", "not an EnrollmentResponse")
		return false
	}
	if response.GetError() != "" {
		l.Logger.Warn("enrollment refused by the signer", "error", response.GetError())
		return false
	}
	if response.GetSignerTime() == nil {
		l.Logger.Warn("enrollment answer refused", "error", "signer_time: missing")
		return false
	}
	notAfter, err := l.Identity.Enroll(response.GetCertificateChain(), response.GetCertificateAuthority(), response.GetSignerTime().AsTime(),
		response.GetRevokedSerialNumbers())
	if err != nil {
		l.Logger.Warn("enrollment answer refused", "error", err)
		return false
	}
	l.Logger.Info("enrolled", "host", l.Identity.HostID(), "notAfter", notAfter.Format(time.RFC3339))
	if l.Enrolled != nil {
		l.Enrolled()
	}
	return true
}
