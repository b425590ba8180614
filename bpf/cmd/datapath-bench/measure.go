package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
	"github.com/palisade-host/palisade/bpf/lab"
)

// How long and how often samples are measured.
const (
	streamTime  = 500 * time.Millisecond
	connectTime = 300 * time.Millisecond
	roundTrips  = 1000
	port        = 5201
)

// sample is one repetition of one rung.
type sample struct {
	StreamGbit, CPUPerGbit, RoundTripP50, RoundTripP99, Connects float64
}

// built is a rung whose links are set up.
type built struct {
	client, server *lab.Namespace
	address        netip.Addr
	close          func()
	// datapath is Palisade's, if the rung has it.
	datapath *datapath.Datapath
}

// running is a rung with a running server process.
type running struct {
	built
	process *exec.Cmd
}

// Client and server are processes of their own, each on its own processor.
func (b built) start(in *lab.Namespace, role string, cpu int, output io.Writer) (*exec.Cmd, error) {
	process := exec.Command("/proc/self/exe", role, netip.AddrPortFrom(b.address, port).String())
	process.Stdout, process.Stderr = output, os.Stderr
	process.Env = append(os.Environ(), fmt.Sprintf("DATAPATH_BENCH_CPU=%d", cpu), "GOMAXPROCS=1")
	return process, in.Do(process.Start)
}

func (b built) serve() (*running, error) {
	process, err := b.start(b.server, "serve", 1, nil)
	return &running{b, process}, err
}

func (r *running) stop() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

func (r *running) measure(role string) (taken sample, err error) {
	var output strings.Builder
	process, err := r.start(r.client, role, 0, &output)
	if err != nil {
		return taken, err
	}
	if err := process.Wait(); err != nil {
		return taken, err
	}
	return taken, json.Unmarshal([]byte(output.String()), &taken)
}

// child runs the client's or the server's process.
func child(role, address string) error {
	var cpu int
	if _, err := fmt.Sscan(os.Getenv("DATAPATH_BENCH_CPU"), &cpu); err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	// Threads that are started later inherit the affinity of this one.
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		var id int
		if _, err := fmt.Sscan(task.Name(), &id); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if role == "serve" {
		return serve(address)
	}
	var taken sample
	if role == "connect" {
		taken.Connects, err = connects(address)
	} else {
		taken, err = measure(address)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(taken)
}

// serve handles a connection by its first byte: it reads a stream and returns the processor time of that, echoes, or
// ends.
func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = connection.Close() }()
			kind := make([]byte, 1)
			if _, err := io.ReadFull(connection, kind); err != nil {
				return
			}
			switch kind[0] {
			case 's':
				before := processorTime()
				buffer := make([]byte, 256<<10)
				for {
					if _, err := connection.Read(buffer); err != nil {
						break
					}
				}
				_, _ = fmt.Fprint(connection, (processorTime() - before).Nanoseconds())
			case 'e':
				buffer := make([]byte, 64)
				for {
					if _, err := io.ReadFull(connection, buffer); err != nil {
						return
					}
					if _, err := connection.Write(buffer); err != nil {
						return
					}
				}
			}
		}()
	}
}

// processorTime returns that of this process, including the kernel's for its packets.
func processorTime() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func measure(address string) (taken sample, err error) {
	if taken.StreamGbit, taken.CPUPerGbit, err = stream(address); err != nil {
		return taken, fmt.Errorf("stream: %w", err)
	}
	if taken.RoundTripP50, taken.RoundTripP99, err = exchange(address); err != nil {
		return taken, fmt.Errorf("round trips: %w", err)
	}
	if taken.Connects, err = connects(address); err != nil {
		return taken, fmt.Errorf("connects: %w", err)
	}
	return taken, nil
}

func dial(address, kind string) (*net.TCPConn, error) {
	var lastError error
	// The server's process may not listen yet.
	for range 100 {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_, err = connection.Write([]byte(kind))
			return connection.(*net.TCPConn), err
		}
		lastError = err
		time.Sleep(10 * time.Millisecond)
	}
	return nil, lastError
}

func stream(address string) (gbit, cpuPerGbit float64, err error) {
	connection, err := dial(address, "s")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = connection.Close() }()
	buffer := make([]byte, 256<<10)
	before, started, sent := processorTime(), time.Now(), 0
	for time.Since(started) < streamTime {
		n, err := connection.Write(buffer)
		if err != nil {
			return 0, 0, err
		}
		sent += n
	}
	if err := connection.CloseWrite(); err != nil {
		return 0, 0, err
	}
	var theirs int64
	if _, err := fmt.Fscan(connection, &theirs); err != nil {
		return 0, 0, err
	}
	elapsed, ours := time.Since(started), processorTime()-before
	total := float64(sent) * 8 / 1e9
	return total / elapsed.Seconds(), (ours + time.Duration(theirs)).Seconds() / total, nil
}

func exchange(address string) (p50, p99 float64, err error) {
	connection, err := dial(address, "e")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = connection.Close() }()
	message := make([]byte, 64)
	times := make([]time.Duration, 0, roundTrips)
	for range roundTrips {
		started := time.Now()
		if _, err := connection.Write(message); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(connection, message); err != nil {
			return 0, 0, err
		}
		times = append(times, time.Since(started))
	}
	slices.Sort(times)
	microseconds := func(at int) float64 { return float64(times[at].Nanoseconds()) / 1000 }
	return microseconds(roundTrips / 2), microseconds(roundTrips * 99 / 100), nil
}

func connects(address string) (float64, error) {
	started, count := time.Now(), 0
	for time.Since(started) < connectTime {
		connection, err := dial(address, "c")
		if err != nil {
			return 0, err
		}
		if err := connection.SetLinger(0); err != nil {
			return 0, err
		}
		if err := connection.Close(); err != nil {
			return 0, err
		}
		count++
	}
	return float64(count) / time.Since(started).Seconds(), nil
}
