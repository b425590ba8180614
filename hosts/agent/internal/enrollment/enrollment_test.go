package enrollment

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// port is a virtio serial port as the guest sees it: while nobody has the other end open, reads return at once and
// writes block.
type port struct {
	mutex    sync.Mutex
	incoming bytes.Buffer
	outgoing bytes.Buffer
	open     bool
	deadline time.Time
	opened   int
}

func (p *port) Read(buffer []byte) (int, error) {
	for {
		p.mutex.Lock()
		if p.incoming.Len() > 0 {
			defer p.mutex.Unlock()
			return p.incoming.Read(buffer)
		}
		open, deadline := p.open, p.deadline
		p.mutex.Unlock()
		if !open {
			return 0, io.EOF
		}
		if !time.Now().Before(deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *port) Write(content []byte) (int, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.open {
		return 0, os.ErrDeadlineExceeded
	}
	return p.outgoing.Write(content)
}

func (p *port) Close() error                     { return nil }
func (p *port) SetWriteDeadline(time.Time) error { return nil }
func (p *port) SetReadDeadline(at time.Time) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.deadline = at
	return nil
}

func (p *port) connect(connected bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.open = connected
}

func (p *port) answer(content string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.incoming.WriteString(content)
}

// request waits for a complete line of the guest.
func (p *port) request(t *testing.T) *agentv1.EnrollmentRequest {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		p.mutex.Lock()
		line, err := p.outgoing.ReadString('\n')
		if err != nil {
			p.outgoing.Reset()
			p.outgoing.WriteString(line)
		}
		p.mutex.Unlock()
		if err == nil {
			var request agentv1.EnrollmentRequest
			if err := protojson.Unmarshal([]byte(line), &request); err != nil {
				t.Fatal(err)
			}
			return &request
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("no request within 5 s")
	return nil
}

type fixture struct {
	host      *identity.Identity
	port      *port
	authority *testca.Authority
	now       time.Time
	enrolled  chan struct{}
	logs      *bytes.Buffer
}

func start(t *testing.T, offset time.Duration) *fixture {
	t.Helper()
	f := &fixture{port: &port{}, now: time.Now().Truncate(time.Second), enrolled: make(chan struct{}, 10), logs: &bytes.Buffer{}}
	f.authority = testca.New(t, f.now)
	host, err := identity.Open(t.TempDir(), identity.NewClock(func() time.Time { return time.Now().Add(offset) }))
	if err != nil {
		t.Fatal(err)
	}
	f.host = host
	loop := &Loop{
		Identity: host, Interval: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(f.logs, nil)),
		Enrolled: func() { f.enrolled <- struct{}{} },
		Open: func() (Port, error) {
			f.port.mutex.Lock()
			defer f.port.mutex.Unlock()
			if f.port.opened++; f.port.opened == 1 {
				return nil, errors.New("no such device yet")
			}
			return f.port, nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		loop.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if strings.Contains(f.logs.String(), "BEGIN") {
			t.Errorf("key or certificate in the logs: %s", f.logs)
		}
	})
	return f
}

func (f *fixture) response(t *testing.T, request *agentv1.EnrollmentRequest, authority *testca.Authority) string {
	t.Helper()
	line, err := protojson.Marshal(&agentv1.EnrollmentResponse{
		CertificateChain:     authority.Host(request.GetCertificateRequest(), f.now.Add(-time.Minute), f.now.Add(time.Hour)),
		CertificateAuthority: authority.PEM(), SignerTime: timestamppb.New(f.now), RevokedSerialNumbers: []string{"a1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(line) + "\n"
}

func (f *fixture) wait(t *testing.T) {
	t.Helper()
	select {
	case <-f.enrolled:
	case <-time.After(5 * time.Second):
		t.Fatalf("not enrolled within 5 s; log: %s", f.logs)
	}
}

func TestEnrollment(t *testing.T) {
	f := start(t, 0)
	// Nobody listens for a while.
	time.Sleep(100 * time.Millisecond)
	f.port.connect(true)
	request := f.port.request(t)
	if request.GetHostId() != f.host.HostID() || request.GetReason() != identity.ReasonInitial || request.GetHostTime() == nil {
		t.Fatalf("%v", request)
	}
	// The response arrives in pieces, after noise.
	answer := f.response(t, request, f.authority)
	f.port.answer("noise\n\n{}\n" + answer[:100])
	time.Sleep(50 * time.Millisecond)
	f.port.answer(answer[100:])
	f.wait(t)
	if reason := f.host.RequestReason(); reason != "" {
		t.Errorf("needs %q", reason)
	}
	if revoked := f.host.Revocations().List(); !slices.Equal(revoked, []string{"a1"}) {
		t.Errorf("revoked: %v", revoked)
	}
	// Nothing is sent while the certificate is valid.
	time.Sleep(60 * time.Millisecond)
	f.port.mutex.Lock()
	f.port.outgoing.Reset()
	f.port.mutex.Unlock()
	time.Sleep(60 * time.Millisecond)
	f.port.mutex.Lock()
	defer f.port.mutex.Unlock()
	if f.port.outgoing.Len() != 0 {
		t.Errorf("goes on asking: %s", f.port.outgoing.String())
	}
}

func TestRefusedAnswersLeaveTheLoopAsking(t *testing.T) {
	f := start(t, 0)
	f.port.connect(true)
	request := f.port.request(t)
	foreign := testca.New(t, f.now)
	mixed, err := protojson.Marshal(&agentv1.EnrollmentResponse{
		CertificateChain:     foreign.Host(request.GetCertificateRequest(), f.now, f.now.Add(time.Hour)),
		CertificateAuthority: f.authority.PEM(), SignerTime: timestamppb.New(f.now),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.port.answer(string(mixed) + "\n" + `{"error":"not now"}` + "\n" + strings.Repeat("x", 2*maximumLine) + "\n")
	request = f.port.request(t)
	if certificate, authority := f.host.Certificate(); certificate != nil || authority != nil {
		t.Fatal("a refused answer was kept")
	}
	f.port.answer(f.response(t, request, f.authority))
	f.wait(t)
}

func TestDisconnectDropsHalfAnAnswer(t *testing.T) {
	f := start(t, 0)
	f.port.connect(true)
	answer := f.response(t, f.port.request(t), f.authority)
	f.port.answer(answer[:50])
	time.Sleep(30 * time.Millisecond)
	f.port.connect(false)
	time.Sleep(30 * time.Millisecond)
	f.port.connect(true)
	f.port.answer(f.response(t, f.port.request(t), f.authority))
	f.wait(t)
}

func TestWrongClock(t *testing.T) {
	f := start(t, -30*365*24*time.Hour)
	f.port.connect(true)
	f.port.answer(f.response(t, f.port.request(t), f.authority))
	f.wait(t)
	if difference := time.Until(f.host.Clock().Now()); difference < -time.Minute || difference > time.Minute {
		t.Errorf("clock is off by %s", difference)
	}
}

// TestSocket uses a real descriptor with deadlines.
func TestSocket(t *testing.T) {
	hypervisor, guest := net.Pipe()
	host, err := identity.Open(t.TempDir(), identity.NewClock(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	authority := testca.New(t, now)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	enrolled := make(chan struct{}, 1)
	loop := &Loop{
		Identity: host, Interval: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Open: func() (Port, error) { return guest, nil }, Enrolled: func() { enrolled <- struct{}{} },
	}
	go loop.Run(ctx)
	line, err := bufio.NewReader(hypervisor).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var request agentv1.EnrollmentRequest
	if err := protojson.Unmarshal([]byte(line), &request); err != nil {
		t.Fatal(err)
	}
	f := &fixture{now: now}
	if _, err := io.WriteString(hypervisor, f.response(t, &request, authority)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-enrolled:
	case <-time.After(5 * time.Second):
		t.Fatal("not enrolled within 5 s")
	}
}
