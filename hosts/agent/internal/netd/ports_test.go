package netd

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
	"github.com/palisade-host/palisade/test/support/acceptance/row"
)

// newConnectedHost returns a host on which netd, and not the lab's own datapath, has the device to the world.
func newConnectedHost(t *testing.T) *host {
	t.Helper()
	h := newHost(t, "-device", "uplink", "-maintenance", "500ms")
	if err := h.lab.InHost(func() error { return h.lab.Datapath.RemoveDevice(h.lab.Uplink) }); err != nil {
		t.Fatal(err)
	}
	return h
}

// answerWith serves a word on port 80 of every address of a namespace.
func answerWith(t *testing.T, in *lab.Namespace, word string) {
	t.Helper()
	stop, err := in.Answer(":80", func(connection net.Conn) { _, _ = io.WriteString(connection, word) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// fromWorld connects to a port of the host from another machine, and returns the answer or the error. IPv6 of a new
// link works a moment after the link is up, so the first packet may have to be repeated.
func (h *host) fromWorld(address netip.Addr, port uint16) string {
	var connection net.Conn
	err := h.lab.Nodes[lab.World].Do(func() (err error) {
		connection, err = (&net.Dialer{Timeout: 3 * time.Second}).Dial("tcp", netip.AddrPortFrom(address, port).String())
		return err
	})
	if err != nil {
		return err.Error()
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(time.Second))
	word, err := io.ReadAll(connection)
	if err != nil {
		return err.Error()
	}
	return string(word)
}

func (h *host) wantClosed(port uint16, when string) {
	h.t.Helper()
	for _, address := range []netip.Addr{lab.HostIPv4, lab.HostIPv6} {
		if got := h.fromWorld(address, port); !strings.Contains(got, "refused") {
			h.t.Errorf("%s: %s port %d: %q, want that it is refused", when, address, port, got)
		}
	}
}

func (h *host) wantAnswer(port uint16, word, when string) {
	h.t.Helper()
	for _, address := range []netip.Addr{lab.HostIPv4, lab.HostIPv6} {
		if got := h.fromWorld(address, port); got != word {
			h.t.Errorf("%s: %s port %d: %q, want %q", when, address, port, got, word)
		}
	}
}

// A published port exists as long as its container, also over a restart of netd and without a declared policy.
func TestPublishedPort(t *testing.T) {
	h := newConnectedHost(t)
	server := newNamespace(t)
	defer server.Close()
	answerWith(t, server, "served")
	h.wantClosed(8080, "before")
	if _, err := h.plugin("ADD", "one", server, "server", `{"hostPort":8080,"containerPort":80,"protocol":"tcp"}`); err != nil {
		t.Fatal(err)
	}
	h.wantAnswer(8080, "served", "published")
	h.wantClosed(80, "the container's own port")
	h.kill()
	h.wantAnswer(8080, "served", "without netd")
	h.start()
	h.wantAnswer(8080, "served", "with the next netd")
	if _, err := h.plugin("DEL", "one", server, "server"); err != nil {
		t.Fatal(err)
	}
	h.wantClosed(8080, "after DEL")
}

// A container cannot learn that the host's uplink has a smaller MTU than its link, so its link never has a larger one.
func TestLinksAreAsNarrowAsTheWayOut(t *testing.T) {
	const narrow = 1400
	h := newConnectedHost(t)
	uplink, err := h.lab.Nodes[lab.Host].Handle.LinkByName("uplink")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.lab.Nodes[lab.Host].Handle.LinkSetMTU(uplink, narrow); err != nil {
		t.Fatal(err)
	}
	h.kill()
	h.start()
	server := newNamespace(t)
	defer server.Close()
	if _, err := h.plugin("ADD", "one", server, "server"); err != nil {
		t.Fatal(err)
	}
	link, err := server.Handle.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if mtu := link.Attrs().MTU; mtu != narrow {
		t.Errorf("MTU %d of the container's link, the device to other machines has %d", mtu, narrow)
	}
}

// What cannot be connected is refused before anything changes.
func TestRefusedPorts(t *testing.T) {
	h := newConnectedHost(t)
	server, other := newNamespace(t), newNamespace(t)
	defer server.Close()
	defer other.Close()
	answerWith(t, server, "served")
	answerWith(t, other, "other")
	if _, err := h.plugin("ADD", "one", server, "server", `{"hostPort":8080,"containerPort":80}`); err != nil {
		t.Fatal(err)
	}
	_, status := h.request(http.MethodGet, "/v1/status", nil)
	links := h.links()
	for name, test := range map[string]struct {
		name     string
		mappings []string
		want     string
	}{
		"taken": {
			"other", []string{`{"hostPort":9090,"containerPort":80}`, `{"hostPort":8080,"containerPort":80,"hostIP":"192.0.2.1"}`},
			`portMappings[1]: port: TCP port 8080 of 192.0.2.1 is taken: it leads to 10.7.0.1:80`,
		},
		"twice in one request": {
			"other", []string{`{"hostPort":9090,"containerPort":80}`, `{"hostPort":9090,"containerPort":81}`},
			`portMappings[1]: port: TCP port 9090 of 0.0.0.0 is taken`,
		},
		"no host port":      {"other", []string{`{"hostPort":0,"containerPort":80}`}, "portMappings[0].hostPort: 0 is not"},
		"no container port": {"other", []string{`{"hostPort":9090,"containerPort":65536}`}, "portMappings[0].containerPort: 65536 is not"},
		"protocol":          {"other", []string{`{"hostPort":9090,"containerPort":80,"protocol":"icmp"}`}, `portMappings[0]: protocol: "ICMP" is not`},
		"address":           {"other", []string{`{"hostPort":9090,"containerPort":80,"hostIP":"host"}`}, `portMappings[0].hostIP: "host" is no IP address`},
		"name":              {"server", nil, `endpoint "test/server": the name is taken: container one/eth0 has it`},
	} {
		// The error is in JSON.
		want, _ := json.Marshal(test.want)
		if _, err := h.plugin("ADD", "two", other, test.name, test.mappings...); err == nil || !strings.Contains(err.Error(), strings.Trim(string(want), `"`)) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	if _, after := h.request(http.MethodGet, "/v1/status", nil); string(after) != string(status) {
		t.Errorf("status %s became %s", status, after)
	}
	if after := h.links(); !slices.Equal(after, links) {
		t.Errorf("links %s became %s", links, after)
	}
	h.wantClosed(9090, "after the refusals")
	h.wantAnswer(8080, "served", "after the refusals")
	if _, err := h.plugin("ADD", "two", other, "other", `{"hostPort":9090,"containerPort":80}`); err != nil {
		t.Fatal(err)
	}
	h.wantAnswer(9090, "other", "without what was wrong")
}

// A host without a declared policy allows everything. With a declared policy, endpoints that it does not name pass
// nothing.
func TestDefaultPolicy(t *testing.T) {
	h := newConnectedHost(t)
	server := newNamespace(t)
	defer server.Close()
	answerWith(t, server, "served")
	if _, err := h.plugin("ADD", "one", server, "server", `{"hostPort":8080,"containerPort":80}`); err != nil {
		t.Fatal(err)
	}
	declared := func() bool {
		var status struct{ PolicyDeclared bool }
		_, content := h.request(http.MethodGet, "/v1/status", nil)
		if err := json.Unmarshal(content, &status); err != nil {
			t.Fatalf("%v: %s", err, content)
		}
		return status.PolicyDeclared
	}
	h.wantAnswer(8080, "served", "without a policy")
	if declared() {
		t.Error("the default policy counts as declared")
	}
	h.apply(datapath.Policy{Version: 1, Endpoints: []datapath.Subject{{Name: "test/another", Identity: 256}}})
	if got := h.fromWorld(lab.HostIPv4, 8080); !strings.Contains(got, "timeout") {
		t.Errorf("a policy that does not name the container: %q", got)
	}
	if !declared() {
		t.Error("the policy does not count as declared")
	}
	h.apply(clientAndServer())
	h.wantAnswer(8080, "served", "a policy that names it")
}

// N18: a detached program and a removed entry are restored automatically.
func TestMaintenanceRepairs(t *testing.T) {
	observation := row.Observe(t, "N18")
	observation.Observed = "netd attaches a detached program again within its maintenance period"
	observation.Control = "while it is detached the port is closed"
	h := newConnectedHost(t)
	server := newNamespace(t)
	defer server.Close()
	answerWith(t, server, "served")
	if _, err := h.plugin("ADD", "one", server, "server", `{"hostPort":8080,"containerPort":80}`); err != nil {
		t.Fatal(err)
	}
	h.wantAnswer(8080, "served", "connected")
	path := h.lab.Pins + "/netd/v1/links/" + strconv.Itoa(h.lab.Uplink) + "-from_device"
	pinned, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if err := pinned.Detach(); err != nil {
		t.Fatal(err)
	}
	h.wantClosed(8080, "detached")
	for deadline := time.Now().Add(5 * time.Second); h.fromWorld(lab.HostIPv4, 8080) != "served"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("netd does not attach the program again")
		}
	}
}
