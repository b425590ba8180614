package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/bpf/datapath"
)

// Program is the cost of a program for one connection that is opened, used once and reset. It includes the kernel's own
// clock around each run.
type Program struct {
	Name  string `json:"name"`
	Rules int    `json:"rules"`
	// RunsPerConnect is how many packets of a connection the program sees.
	RunsPerConnect float64 `json:"runsPerConnect"`
	// NanosecondsPerRun is the mean of its runs, and NanosecondsPerConnect the sum for a connection.
	NanosecondsPerRun     float64 `json:"nanosecondsPerRun"`
	NanosecondsPerConnect float64 `json:"nanosecondsPerConnect"`
}

// withPalisade runs the datapath and a server as the scaling rungs do.
func withPalisade(rules int, do func(*running) error) error {
	built, err := palisade(rules, datapath.EventsFlows, datapath.Veth)
	if err != nil {
		return err
	}
	defer built.close()
	server, err := built.serve()
	if err != nil {
		return err
	}
	defer server.stop()
	return do(server)
}

// connectFor only opens connections, for a duration.
func connectFor(server *running, duration time.Duration) error {
	for started := time.Now(); time.Since(started) < duration; {
		if _, err := server.measure("connect"); err != nil {
			return err
		}
	}
	return nil
}

// profile makes the kernel measure the run time of programs. The measurement takes time itself, so nothing else is
// measured meanwhile.
func profile(server *running, rules int) (programs []Program, err error) {
	// The first connections find empty caches.
	if _, err := server.measure("connect"); err != nil {
		return nil, err
	}
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, err
	}
	defer func() { _ = counting.Close() }()
	before, err := server.datapath.RunTimes()
	if err != nil {
		return nil, err
	}
	taken, err := server.measure("connect")
	if err != nil {
		return nil, err
	}
	after, err := server.datapath.RunTimes()
	if err != nil {
		return nil, err
	}
	connections := taken.Connects * connectTime.Seconds()
	for name := range after {
		runs, spent := float64(after[name].Runs-before[name].Runs), float64((after[name].Time - before[name].Time).Nanoseconds())
		if runs == 0 {
			continue
		}
		programs = append(programs, Program{
			Name: name, Rules: rules, RunsPerConnect: runs / connections, NanosecondsPerRun: spent / runs, NanosecondsPerConnect: spent / connections,
		})
	}
	slices.SortFunc(programs, func(a, b Program) int { return cmp.Compare(a.Name, b.Name) })
	return programs, nil
}
