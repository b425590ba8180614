package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// Timeout is that of a probe that is neither answered nor dropped visibly, unless the lab's description sets another.
const Timeout = time.Second

// Probe is one exchange of real traffic.
type Probe struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Family int    `json:"family"`
	// Protocol is TCP, UDP, SCTP or ICMP (an echo request of the family, without a port).
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// Result is whether the answer of a probe came back.
type Result struct {
	Allowed bool `json:"allowed"`
	// Reason is the datapath's reason for the drop, or "timeout"; empty for an allowed probe.
	Reason string `json:"reason,omitempty"`
}

var protocols = map[string]uint8{"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}

// Probe sends from one node to a server that it starts on the other node. An error means that the probe itself is
// invalid.
func (l *Lab) Probe(probe Probe) (Result, error) {
	if l.watcher == nil {
		return Result{}, errors.New("probe: this lab reads no events")
	}
	from, to := l.Nodes[probe.From], l.Nodes[probe.To]
	if from == nil || to == nil {
		return Result{}, fmt.Errorf("probe: from %q to %q: no such endpoint", probe.From, probe.To)
	}
	source, target := from.Address(probe.Family), to.Address(probe.Family)
	protocol, known := protocols[probe.Protocol]
	if probe.Protocol == "ICMP" && probe.Family == 6 {
		protocol = 58
	}
	if (probe.Family != 4 && probe.Family != 6) || !known || (probe.Port == 0) != (probe.Protocol == "ICMP") || !source.IsValid() || !target.IsValid() {
		return Result{}, fmt.Errorf("probe: family %d, protocol %q, port %d: has to be 4 or 6, TCP, UDP, SCTP or ICMP, and above zero but for ICMP; "+
			"both ends need an address of the family", probe.Family, probe.Protocol, probe.Port)
	}
	address := netip.AddrPortFrom(target, probe.Port)
	if err := to.Serve(probe.Protocol, address); err != nil {
		return Result{}, fmt.Errorf("probe: serve %s %s: %w", probe.Protocol, address, err)
	}
	return l.Send(from, protocol, address)
}

// Send sends to an address, and waits for the answer or for the event of a drop.
func (l *Lab) Send(from *Node, protocol uint8, to netip.AddrPort) (Result, error) {
	timeout := Timeout
	if seconds := l.description.TimeoutSeconds; seconds != 0 {
		timeout = time.Duration(seconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	source := from.IPv4
	if to.Addr().Is6() {
		source = from.IPv6
	}
	drops := l.watcher.expect(drop{source, to, protocol}, cancel)
	defer drops.forget()
	var err error
	switch protocol {
	case protocols["TCP"]:
		err = from.dialTCP(ctx, to)
	case protocols["UDP"]:
		err = from.exchangeUDP(ctx, to)
	case protocols["SCTP"]:
		err = from.exchangeSCTP(ctx, source, to)
	default:
		err = from.exchangeEcho(ctx, to.Addr())
	}
	if err == nil {
		return Result{Allowed: true}, nil
	}
	if errors.Is(err, unix.ENOBUFS) {
		// The drop fails the sender's call before the event of the drop is read.
		<-ctx.Done()
	}
	if reason := drops.reason(); reason != "" {
		return Result{Reason: reason}, nil
	}
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return Result{Reason: "timeout"}, nil
	}
	return Result{Reason: err.Error()}, nil
}

func (n *Node) dialTCP(ctx context.Context, to netip.AddrPort) error {
	var connection net.Conn
	err := n.Do(func() (err error) {
		dialer := net.Dialer{FallbackDelay: -1}
		connection, err = dialer.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return err
	}
	// A reset avoids the wait for late packets, in which ports would run out.
	_ = connection.(*net.TCPConn).SetLinger(0)
	return connection.Close()
}

func (n *Node) exchangeUDP(ctx context.Context, to netip.AddrPort) error {
	var connection *net.UDPConn
	if err := n.Do(func() (err error) {
		connection, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })
	defer stop()
	if _, err := connection.Write([]byte("palisade")); err != nil {
		return err
	}
	_, err := connection.Read(make([]byte, 64))
	return err
}

// Serve starts a server when it is requested for the first time. Each kernel answers echo requests by itself.
func (n *Node) Serve(protocol string, address netip.AddrPort) error {
	if protocol == "ICMP" {
		return nil
	}
	n.mutex.Lock()
	defer n.mutex.Unlock()
	name := protocol + address.String()
	if protocol == "SCTP" {
		// One server answers for all ports.
		name = protocol + address.Addr().String()
	}
	if _, running := n.servers[name]; running {
		return nil
	}
	var stop func()
	err := n.Do(func() (err error) {
		switch protocol {
		case "TCP":
			stop, err = serveTCP(address)
		case "UDP":
			stop, err = serveUDP(address)
		default:
			stop, err = serveSCTP(address.Addr())
		}
		return err
	})
	if err == nil {
		n.servers[name] = stop
	}
	return err
}

func serveTCP(address netip.AddrPort) (func(), error) {
	return answer(address.String(), func(net.Conn) {})
}

// Answer calls do with each connection to a TCP address and closes the connection after that. The address `:80` means
// all addresses of the namespace. It returns the error that ends it.
func (n *Namespace) Answer(address string, do func(net.Conn)) (stop func(), err error) {
	err = n.Do(func() error {
		stop, err = answer(address, do)
		return err
	})
	return stop, err
}

func answer(address string, do func(net.Conn)) (func(), error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = connection.Close() }()
				do(connection)
			}()
		}
	}()
	return func() { _ = listener.Close() }, nil
}

func serveUDP(address netip.AddrPort) (func(), error) {
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = socket.WriteToUDPAddrPort(buffer[:n], from)
			}
		}
	}()
	return func() { _ = socket.Close() }, nil
}

// drop identifies the event of a probe. It has no source port, because the kernel chooses that.
type drop struct {
	source   netip.Addr
	to       netip.AddrPort
	protocol uint8
}

// watcher reads the datapath's events for waiting probes.
type watcher struct {
	events *datapath.Events
	done   chan struct{}
	read   uint64

	mutex   sync.Mutex
	waiting map[drop][]*expectation
}

type expectation struct {
	watcher *watcher
	drop    drop
	cancel  func()
	seen    string
}

func watch(d *datapath.Datapath) (*watcher, error) {
	events, err := d.Events(5 * time.Millisecond)
	if err != nil {
		return nil, err
	}
	w := &watcher{events: events, done: make(chan struct{}), waiting: map[drop][]*expectation{}}
	go func() {
		defer close(w.done)
		for {
			flow, err := events.Next()
			if err != nil {
				return
			}
			w.read++
			if !flow.Forwarded {
				w.report(flow)
			}
		}
	}()
	return w, nil
}

func (w *watcher) report(flow datapath.Flow) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	source, destination := flow.Source, flow.Destination
	if flow.Protocol == 1 || flow.Protocol == 58 {
		// ICMP identifiers are not ports.
		source, destination = netip.AddrPortFrom(source.Addr(), 0), netip.AddrPortFrom(destination.Addr(), 0)
	}
	// The dropped packet may also be the answer.
	for _, key := range []drop{
		{source.Addr(), destination, flow.Protocol},
		{destination.Addr(), source, flow.Protocol},
	} {
		for _, expected := range w.waiting[key] {
			expected.seen = flow.Reason
			expected.cancel()
		}
	}
}

func (w *watcher) expect(key drop, cancel func()) *expectation {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	e := &expectation{watcher: w, drop: key, cancel: cancel}
	w.waiting[key] = append(w.waiting[key], e)
	return e
}

func (e *expectation) reason() string {
	e.watcher.mutex.Lock()
	defer e.watcher.mutex.Unlock()
	return e.seen
}

func (e *expectation) forget() {
	e.watcher.mutex.Lock()
	defer e.watcher.mutex.Unlock()
	rest := e.watcher.waiting[e.drop][:0]
	for _, expected := range e.watcher.waiting[e.drop] {
		if expected != e {
			rest = append(rest, expected)
		}
	}
	if len(rest) == 0 {
		delete(e.watcher.waiting, e.drop)
		return
	}
	e.watcher.waiting[e.drop] = rest
}

func (w *watcher) close() {
	_ = w.events.Close()
	<-w.done
}
