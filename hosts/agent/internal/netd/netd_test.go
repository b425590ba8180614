package netd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// The test's own program also runs as netd and as the plugin, each in a process of its own as on a host.
const role = "PALISADE_NETD_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "netd":
		if err := Run(context.Background(), os.Args[1:], slog.Default()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "plugin":
		Plugin()
	default:
		os.Exit(m.Run())
	}
}

// host is a machine with netd.
type host struct {
	t      *testing.T
	lab    *lab.Lab
	socket string
	args   []string
	daemon *exec.Cmd
}

func newHost(t *testing.T, flags ...string) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: BPF programs, network namespaces")
	}
	running, err := lab.New(lab.Description{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.Close)
	folder := t.TempDir()
	h := &host{t: t, lab: running, socket: filepath.Join(folder, "netd.sock")}
	// netd has programs and maps of its own, in addition to the lab's.
	h.args = []string{"-socket", h.socket, "-socket-group", "", "-state", filepath.Join(folder, "state"), "-pins", running.Pins + "/netd",
		"-ipv4", "10.7.0.0/16", "-ipv6", "fd07::/112"}
	h.args = append(h.args, flags...)
	h.start()
	t.Cleanup(h.kill)
	return h
}

func (h *host) start() {
	h.t.Helper()
	h.daemon = exec.Command(os.Args[0], h.args...)
	h.daemon.Env = append(os.Environ(), role+"=netd")
	var output bytes.Buffer
	h.daemon.Stdout, h.daemon.Stderr = &output, &output
	// A child starts in the network namespace of the thread that starts it.
	if err := h.lab.InHost(h.daemon.Start); err != nil {
		h.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if connection, err := net.Dial("unix", h.socket); err == nil {
			connection.Close()
			return
		}
		if time.Now().After(deadline) {
			h.kill()
			h.t.Fatalf("netd does not serve: %s", &output)
		}
	}
}

// kill kills netd, which cannot clean up.
func (h *host) kill() {
	if h.daemon == nil {
		return
	}
	_ = h.daemon.Process.Signal(syscall.SIGKILL)
	_ = h.daemon.Wait()
	h.daemon = nil
}

// plugin runs the CNI plugin and returns its result. Port mappings are JSON, as from a runtime.
func (h *host) plugin(command, id string, namespace *lab.Namespace, name string, portMappings ...string) (string, error) {
	plugin := exec.Command(os.Args[0])
	plugin.Env = append(os.Environ(), role+"=plugin", "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME="+name)
	if namespace != nil {
		plugin.Env = append(plugin.Env, fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), int(namespace.NS)))
	}
	plugin.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","type":"palisade-cni","socket":%q,`+
		`"capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[%s]}}`, h.socket, strings.Join(portMappings, ",")))
	output, err := plugin.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, output)
	}
	return string(output), nil
}

func (h *host) request(method, path string, body []byte) (int, []byte) {
	h.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", h.socket)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://netd"+path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return response.StatusCode, content
}

func (h *host) apply(policy datapath.Policy) {
	h.t.Helper()
	sealed, err := policy.Seal()
	if err != nil {
		h.t.Fatal(err)
	}
	if code, answer := h.request(http.MethodPut, "/v1/policy", sealed); code != http.StatusOK {
		h.t.Fatalf("%d %s", code, answer)
	}
}

// addressOf returns the IPv4 address in a plugin's result.
func addressOf(t *testing.T, result string) netip.Addr {
	t.Helper()
	var parsed struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal([]byte(result), &parsed); err != nil || len(parsed.IPs) != 2 {
		t.Fatalf("%v: %s", err, result)
	}
	return parsed.IPs[0].Address.Addr()
}

// The client of the tests may reach only port 80 of the server.
func clientAndServer() datapath.Policy {
	allowed := datapath.Rule{Action: "allow", Protocol: "UDP", PortStart: 80, PortEnd: 80}
	tcp := datapath.Rule{Action: "allow", Protocol: "TCP", PortStart: 80, PortEnd: 80}
	return datapath.Policy{Version: 1, Endpoints: []datapath.Subject{
		{Name: "test/client", Identity: 256, Egress: datapath.Direction{Enforce: true, Rules: []datapath.Rule{allowed, tcp}}},
		{Name: "test/server", Identity: 257},
	}}
}

func newNamespace(t *testing.T) *lab.Namespace {
	t.Helper()
	namespace, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	return namespace
}

// counter counts what a server receives, by start and port.
type counter struct {
	mutex    sync.Mutex
	received map[uint32]uint32
}

func (c *counter) get(start uint32) uint32 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.received[start]
}

func count(t *testing.T, in *lab.Namespace, address netip.Addr, port uint16) *counter {
	t.Helper()
	var socket *net.UDPConn
	if err := in.Do(func() (err error) {
		socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, port)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_ = socket.SetReadBuffer(4 << 20)
	t.Cleanup(func() { socket.Close() })
	c := &counter{received: map[uint32]uint32{}}
	go func() {
		buffer := make([]byte, 64)
		for {
			n, err := socket.Read(buffer)
			if err != nil {
				return
			}
			if n == 4 {
				c.mutex.Lock()
				c.received[binary.BigEndian.Uint32(buffer)]++
				c.mutex.Unlock()
			}
		}
	}()
	return c
}

// taken counts the packets that a container's kernel accepted for each port.
type taken struct{ allowed, denied atomic.Uint32 }

// sendFromTheStart sends before there is a network, and continues until it is stopped.
func sendFromTheStart(namespace *lab.Namespace, start uint32, to netip.Addr, stop <-chan struct{}, sent *taken) error {
	message := binary.BigEndian.AppendUint32(nil, start)
	return namespace.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			for port, count := range map[int]*atomic.Uint32{80: &sent.allowed, 81: &sent.denied} {
				if unix.Sendto(socket, message, 0, &unix.SockaddrInet4{Port: port, Addr: to.As4()}) == nil {
					count.Add(1)
				}
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
}

// N6: a workload sends from its first instruction. No packet that the policy denies leaves it, and none that the policy
// allows is lost.
func TestNoPacketBeforePolicy(t *testing.T) {
	observation := row.Observe(t, "N6")
	h := newHost(t)
	h.apply(clientAndServer())
	server := newNamespace(t)
	defer server.Close()
	result, err := h.plugin("ADD", "server", server, "server")
	if err != nil {
		t.Fatal(err)
	}
	address := addressOf(t, result)
	allowedPort, deniedPort := count(t, server, address, 80), count(t, server, address, 81)
	starts := 200
	if given, err := strconv.Atoi(os.Getenv("PALISADE_STARTS")); err == nil {
		starts = given
	}
	if starts < 1000 {
		observation.Missing = "1,000 starts (PALISADE_STARTS=1000)"
	}
	var sentAllowed, sentDenied uint64
	for i := range starts {
		start := uint32(i)
		client := newNamespace(t)
		stop := make(chan struct{})
		var sent taken
		var sender sync.WaitGroup
		sender.Go(func() {
			if err := sendFromTheStart(client, start, address, stop, &sent); err != nil {
				t.Error(err)
			}
		})
		id := fmt.Sprintf("client-%d", i)
		if _, err := h.plugin("ADD", id, client, "client"); err != nil {
			t.Fatal(err)
		}
		// The sender may be scheduled late. Both kinds of packets have to be sent before it is stopped.
		for deadline := time.Now().Add(10 * time.Second); (sent.allowed.Load() == 0 || sent.denied.Load() == 0) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		close(stop)
		sender.Wait()
		allowed, denied := sent.allowed.Load(), sent.denied.Load()
		for deadline := time.Now().Add(time.Second); allowedPort.get(start) < allowed && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if arrived := allowedPort.get(start); arrived != allowed || allowed == 0 {
			t.Errorf("start %d: %d of %d allowed packets arrived", i, arrived, allowed)
		}
		if arrived := deniedPort.get(start); arrived != 0 || denied == 0 {
			t.Errorf("start %d: %d of %d denied packets arrived", i, arrived, denied)
		}
		sentAllowed, sentDenied = sentAllowed+uint64(allowed), sentDenied+uint64(denied)
		if _, err := h.plugin("DEL", id, client, "client"); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	observation.Observed = fmt.Sprintf("%d starts: %d allowed packets, all arrived; %d denied ones, none arrived", starts, sentAllowed, sentDenied)
	observation.Control = "the denied packets were taken by the kernel of the container"
}

// The CNI commands: a second ADD makes no second link, CHECK detects damage, and DEL of a missing container succeeds.
func TestPlugin(t *testing.T) {
	h := newHost(t)
	h.apply(clientAndServer())
	namespace := newNamespace(t)
	defer namespace.Close()
	first, err := h.plugin("ADD", "one", namespace, "server")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.plugin("ADD", "one", namespace, "server"); err != nil || again != first {
		t.Errorf("second ADD: %v, %s", err, again)
	}
	previous := func(command string) error {
		plugin := exec.Command(os.Args[0])
		plugin.Env = append(os.Environ(), role+"=plugin", "CNI_COMMAND="+command, "CNI_CONTAINERID=one", "CNI_IFNAME=eth0", "CNI_PATH=/nowhere",
			fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), int(namespace.NS)))
		plugin.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","type":"palisade-cni","socket":%q,"prevResult":%s}`, h.socket, first))
		output, err := plugin.Output()
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	}
	if err := previous("CHECK"); err != nil {
		t.Errorf("CHECK of what is connected: %v", err)
	}
	_, status := h.request(http.MethodGet, "/v1/status", nil)
	var link string
	for _, candidate := range h.links() {
		if strings.HasPrefix(candidate, "pal") {
			link = candidate
		}
	}
	found, err := h.lab.Nodes[lab.Host].Handle.LinkByName(link)
	if err != nil {
		t.Fatalf("%v; status %s", err, status)
	}
	if err := h.lab.Nodes[lab.Host].Handle.LinkDel(found); err != nil {
		t.Fatal(err)
	}
	if err := previous("CHECK"); err == nil {
		t.Error("CHECK of a container whose link is gone succeeds")
	}
	for range 2 {
		if _, err := h.plugin("DEL", "one", nil, "server"); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if err := previous("CHECK"); err == nil || !strings.Contains(err.Error(), errNotConnected.Error()) {
		t.Errorf("CHECK after DEL: %v", err)
	}
}

func (h *host) links() (names []string) {
	links, err := h.lab.Nodes[lab.Host].Handle.LinkList()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, link := range links {
		names = append(names, link.Attrs().Name)
	}
	return names
}

// After netd was killed, containers stay connected under their policy, and the next netd knows them.
func TestKilled(t *testing.T) {
	observation := row.Observe(t, "N8")
	observation.Observed = "netd killed: an open connection goes on, the policy holds, the next netd knows its containers"
	h := newHost(t)
	h.apply(clientAndServer())
	client, server := newNamespace(t), newNamespace(t)
	defer client.Close()
	defer server.Close()
	result, err := h.plugin("ADD", "server", server, "server")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.plugin("ADD", "client", client, "client"); err != nil {
		t.Fatal(err)
	}
	address := addressOf(t, result)
	var listener net.Listener
	if err := server.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(address, 80).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(connection, connection) }()
		}
	}()
	dial := func(port uint16) (connection net.Conn, err error) {
		return connection, client.Do(func() error {
			connection, err = (&net.Dialer{Timeout: 300 * time.Millisecond}).Dial("tcp", netip.AddrPortFrom(address, port).String())
			return err
		})
	}
	connection, err := dial(80)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	exchange := func(when string) {
		t.Helper()
		connection.SetDeadline(time.Now().Add(time.Second))
		if _, err := connection.Write([]byte("ping")); err != nil {
			t.Errorf("%s: %v", when, err)
		} else if _, err := io.ReadFull(connection, make([]byte, 4)); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if other, err := dial(81); err == nil || !strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the denied port: %v %v", when, other, err)
		}
	}
	exchange("before")
	h.kill()
	exchange("without netd")
	h.start()
	exchange("with the next netd")
	var status datapath.Status
	_, content := h.request(http.MethodGet, "/v1/status", nil)
	if err := json.Unmarshal(content, &status); err != nil || len(status.Problems) != 0 || status.Endpoints != 2 {
		t.Errorf("%v %s", err, content)
	}
	if _, metrics := h.request(http.MethodGet, "/metrics", nil); !bytes.Contains(metrics, []byte(`reason="policy_default_denied"`)) {
		t.Errorf("metrics: %s", metrics)
	}
}

// A wrong policy changes nothing.
func TestWrongPolicy(t *testing.T) {
	h := newHost(t)
	h.apply(clientAndServer())
	_, before := h.request(http.MethodGet, "/v1/status", nil)
	sealed, err := clientAndServer().Seal()
	if err != nil {
		t.Fatal(err)
	}
	code, answer := h.request(http.MethodPut, "/v1/policy", bytes.Replace(sealed, []byte(`"portStart":80`), []byte(`"portStart":79`), 1))
	if code != http.StatusBadRequest || !bytes.Contains(answer, []byte("policy.hash")) {
		t.Errorf("%d %s", code, answer)
	}
	if _, after := h.request(http.MethodGet, "/v1/status", nil); !bytes.Equal(before, after) {
		t.Errorf("status %s became %s", before, after)
	}
}

// N12: everything else that handles packets is reported by name.
func TestBypasses(t *testing.T) {
	observation := row.Observe(t, "N12")
	observation.Observed = "named with what is bypassed"
	observation.Control = "on an empty host nothing is named"
	h := newHost(t)
	bypasses := func() string {
		_, content := h.request(http.MethodGet, "/v1/status", nil)
		var status struct {
			Bypasses []string `json:"bypasses"`
		}
		if err := json.Unmarshal(content, &status); err != nil {
			t.Fatalf("%v: %s", err, content)
		}
		return strings.Join(status.Bypasses, "\n")
	}
	if found := bypasses(); found != "" {
		t.Errorf("on an empty host: %s", found)
	}
	handle := h.lab.Nodes[lab.Host].Handle
	rule := netlink.NewRule()
	rule.Table, rule.Priority, rule.Family = 77, 700, netlink.FAMILY_V4
	if err := handle.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	if found := bypasses(); !strings.Contains(found, "routing rule 700 to table 77") {
		t.Errorf("with a routing rule: %q", found)
	}
	t.Run("nftables", func(t *testing.T) {
		if _, err := exec.LookPath("nft"); err != nil {
			observation.Missing += "nftables (not installed) "
			t.Skip("nft is not installed")
		}
		if err := h.lab.InHost(func() error { return exec.Command("nft", "add", "table", "inet", "guard").Run() }); err != nil {
			observation.Missing += "nftables (not in this kernel) "
			t.Skipf("the kernel has no nftables: %v", err)
		}
		if found := bypasses(); !strings.Contains(found, "nftables table inet guard") {
			t.Errorf("with a table: %q", found)
		}
	})
	t.Run("WireGuard", func(t *testing.T) {
		// This is a part of its own: where this kernel has none, test/layers/conformance/guest.test.ts runs it on another.
		observation := row.Observe(t, "N12")
		observation.Observed = "a WireGuard device is named with what is bypassed"
		observation.Control = "without one it is not named"
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "wg0"
		if err := handle.LinkAdd(&netlink.Wireguard{LinkAttrs: attributes}); err != nil {
			t.Skipf("the kernel has no WireGuard: %v", err)
		}
		if found := bypasses(); !strings.Contains(found, "WireGuard device wg0") {
			t.Errorf("with a device: %q", found)
		}
	})
}
