// datapath-bench measures a ladder of data paths, from loopback to Palisade's datapath, and how each scales with rules.
// It measures everything in one run, because results of different runs cannot be compared. The repetitions of all rungs
// alternate, so that a busy moment of the machine affects all of them.
//
// It needs root, and iptables and nft for their rungs. It writes a report (JSON) to standard output and its progress to
// standard error.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Report is the output of a run.
type Report struct {
	Kernel      string    `json:"kernel"`
	CPUs        int       `json:"cpus"`
	LoadAverage string    `json:"loadAverage"`
	Started     time.Time `json:"started"`
	Repetitions int       `json:"repetitions"`
	Ladder      []Rung    `json:"ladder"`
	Scaling     []Rung    `json:"scaling"`
	Goals       []Goal    `json:"goals"`
	Programs    []Program `json:"programs"`
}

// Rung is one way for packets to go.
type Rung struct {
	Name  string `json:"name"`
	Rules int    `json:"rules"`
	// These values include the processor time of client and server.
	StreamGbit   Interval `json:"streamGbit"`
	CPUPerGbit   Interval `json:"cpuSecondsPerGbit"`
	RoundTripP50 Interval `json:"roundTripP50Microseconds"`
	RoundTripP99 Interval `json:"roundTripP99Microseconds"`
	Connects     Interval `json:"connectsPerSecond"`
}

// Interval is a median, with bounds that contain the true median in at least 95 of 100 runs (order statistics).
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func main() {
	if len(os.Args) > 1 && slices.Contains([]string{"serve", "measure", "connect"}, os.Args[1]) {
		if err := child(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
			os.Exit(1)
		}
		return
	}
	repetitions := flag.Int("repetitions", 10, "of each rung, at least 6 for an interval")
	most := flag.Int("rules", 100_000, "the most rules of the scaling")
	duration := flag.Duration("connect", 0, "only make connections through the datapath for so long, as something for perf record to look at")
	flag.Parse()
	if *duration != 0 {
		if err := withPalisade(2, func(server *running) error { return connectFor(server, *duration) }); err != nil {
			fmt.Fprintln(os.Stderr, "datapath-bench:", err)
			os.Exit(1)
		}
		return
	}
	report, err := run(*repetitions, *most)
	if err == nil {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "datapath-bench:", err)
		os.Exit(1)
	}
}

func run(repetitions, most int) (Report, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Report{}, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Report{}, err
	}
	report := Report{
		Kernel: string(kernel[:len(kernel)-1]), CPUs: runtime.NumCPU(), LoadAverage: string(load[:len(load)-1]),
		Started: time.Now().UTC(), Repetitions: repetitions,
	}
	rungs, taken, err := measureAll(ladder(), repetitions)
	if err != nil {
		return report, err
	}
	report.Ladder = rungs
	report.Goals = ladderGoals(taken)
	if report.Scaling, taken, err = measureAll(scaling(most), repetitions); err != nil {
		return report, err
	}
	report.Goals = append(report.Goals, scalingGoals(taken, most)...)
	for _, goal := range report.Goals {
		fmt.Fprintln(os.Stderr, goal)
	}
	for _, rules := range []int{2, most} {
		err := withPalisade(rules, func(server *running) error {
			profiled, err := profile(server, rules)
			report.Programs = append(report.Programs, profiled...)
			return err
		})
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

// measureAll builds all rungs and measures them in turns.
//
// It skips and reports rungs for which this machine lacks a program or a kind of link.
func measureAll(all []rung, repetitions int) ([]Rung, turns, error) {
	var rungs []rung
	var servers []*running
	for _, rung := range all {
		started := time.Now()
		built, err := rung.build()
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, unix.EOPNOTSUPP) {
			fmt.Fprintf(os.Stderr, "%s, %d rules: left out: %v\n", rung.name, rung.rules, err)
			continue
		}
		if err != nil {
			return nil, turns{}, fmt.Errorf("%s with %d rules: %w", rung.name, rung.rules, err)
		}
		defer built.close()
		server, err := built.serve()
		if err != nil {
			return nil, turns{}, fmt.Errorf("%s: %w", rung.name, err)
		}
		defer server.stop()
		rungs, servers = append(rungs, rung), append(servers, server)
		fmt.Fprintf(os.Stderr, "%s, %d rules: built in %.1f s\n", rung.name, rung.rules, time.Since(started).Seconds())
	}
	results, samples := make([]Rung, len(rungs)), make([][]sample, len(rungs))
	for repetition := range repetitions {
		for i, rung := range rungs {
			taken, err := servers[i].measure("measure")
			if err != nil {
				return nil, turns{}, fmt.Errorf("%s with %d rules: %w", rung.name, rung.rules, err)
			}
			samples[i] = append(samples[i], taken)
		}
		fmt.Fprintf(os.Stderr, "repetition %d of %d\n", repetition+1, repetitions)
	}
	for i, rung := range rungs {
		results[i] = Rung{
			Name: rung.name, Rules: rung.rules,
			StreamGbit:   interval(samples[i], func(s sample) float64 { return s.StreamGbit }),
			CPUPerGbit:   interval(samples[i], func(s sample) float64 { return s.CPUPerGbit }),
			RoundTripP50: interval(samples[i], func(s sample) float64 { return s.RoundTripP50 }),
			RoundTripP99: interval(samples[i], func(s sample) float64 { return s.RoundTripP99 }),
			Connects:     interval(samples[i], func(s sample) float64 { return s.Connects }),
		}
	}
	return results, turns{rungs, samples}, nil
}

func interval(samples []sample, value func(sample) float64) Interval {
	var values []float64
	for _, sample := range samples {
		values = append(values, value(sample))
	}
	return intervalOf(values)
}

// intervalOf returns the interval of n values. The k-th smallest and largest values bound the median with probability 1
// - 2·P(Binomial(n, ½) < k).
func intervalOf(values []float64) Interval {
	slices.Sort(values)
	n := len(values)
	k, tail, term := 0, 0.0, 1.0
	for range n {
		term /= 2
	}
	for tail+term <= 0.025 {
		tail += term
		term *= float64(n-k) / float64(k+1)
		k++
	}
	k = max(k-1, 0)
	return Interval{Median: (values[(n-1)/2] + values[n/2]) / 2, Low: values[k], High: values[n-1-k]}
}
