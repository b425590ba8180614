// Package lab creates a host with containers and another machine out of network namespaces, runs the datapath between
// them, and sends real traffic. Nothing in a lab has a name, so everything disappears with the process.
package lab

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with a thread in it.
type Namespace struct {
	// Handle manages its links, addresses and routes.
	Handle *netlink.Handle
	// NS refers to the namespace itself.
	NS netns.NsHandle

	work chan func()
}

// NewNamespace creates a network namespace with its loopback device up.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{work: make(chan func())}
	started := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine and runs nothing else.
		runtime.LockOSThread()
		var err error
		if n.NS, err = netns.New(); err == nil {
			n.Handle, err = netlink.NewHandleAt(n.NS, unix.NETLINK_ROUTE)
		}
		started <- err
		if err != nil {
			return
		}
		for do := range n.work {
			do()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	loopback, err := n.Handle.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return n, n.Handle.LinkSetUp(loopback)
}

// Do runs a function in the namespace. Sockets that it opens stay in it.
func (n *Namespace) Do(do func() error) error {
	done := make(chan error)
	n.work <- func() { done <- do() }
	return <-done
}

// Sysctl writes to /proc/sys.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644) })
}

// Close ends the thread. The namespace disappears with the last socket in it.
func (n *Namespace) Close() {
	close(n.work)
	n.Handle.Close()
	_ = n.NS.Close()
}
