// datapath-lab builds a lab of network namespaces and answers probes: real traffic between endpoints under a compiled
// policy. It is a tool for tests. It needs root, and nothing of the lab outlives it.
//
// The argument is a JSON file that describes the lab (lab.Description). When the lab runs, the program writes
// {"ready":true}. Then it answers each line of JSON with one line:
//
//	{"from":"a","to":"b","family":4,"protocol":"TCP","port":80}  →  {"allowed":false,"reason":"policy_denied"}
//	{"probes":[…]}                                               →  {"results":[…]}, many at a time
//	{"policy":{…}}                                               →  {"applied":"<hash>"}
//
// The answer to a failed request is {"error":"…"}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/palisade-host/palisade/bpf/lab"
)

// parallel is how many probes of a batch run at the same time.
const parallel = 16

type request struct {
	lab.Probe
	Probes []lab.Probe     `json:"probes"`
	Policy json.RawMessage `json:"policy"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "datapath-lab:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: datapath-lab DESCRIPTION.json")
	}
	data, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var description lab.Description
	if err := json.Unmarshal(data, &description); err != nil {
		return fmt.Errorf("%s: %w", os.Args[1], err)
	}
	running, err := lab.New(description)
	if err != nil {
		return err
	}
	defer running.Close()
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(map[string]bool{"ready": true}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 256<<20)
	for lines.Scan() {
		answer, err := handle(running, lines.Bytes())
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func handle(running *lab.Lab, line []byte) (any, error) {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	switch {
	case len(asked.Policy) != 0:
		if err := running.Apply(asked.Policy); err != nil {
			return nil, err
		}
		status, err := running.Datapath.Status()
		return map[string]string{"applied": status.PolicyHash}, err
	case asked.Probes != nil:
		return probeAll(running, asked.Probes)
	}
	return running.Probe(asked.Probe)
}

func probeAll(running *lab.Lab, probes []lab.Probe) (any, error) {
	results, failures := make([]lab.Result, len(probes)), make([]error, len(probes))
	var group sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i, probe := range probes {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			results[i], failures[i] = running.Probe(probe)
		})
	}
	group.Wait()
	for i, failure := range failures {
		if failure != nil {
			return nil, fmt.Errorf("probes[%d]: %w", i, failure)
		}
	}
	return map[string][]lab.Result{"results": results}, nil
}
