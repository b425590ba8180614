// Package row is how a Go test writes down what it observed for a row of an acceptance table: as a line of its log,
// which collect-go.ts takes from the events of `go test -json`.
package row

import (
	"encoding/json"
	"testing"
	"time"
)

// Prefix is how such a line begins.
const Prefix = "acceptance: "

// Observation has the fields of Observation in report.ts.
type Observation struct {
	Table    string  `json:"table"`
	ID       string  `json:"id"`
	Part     string  `json:"part,omitempty"`
	Observed string  `json:"observed"`
	Control  string  `json:"control,omitempty"`
	Pass     bool    `json:"pass"`
	Seconds  float64 `json:"seconds"`
	Evidence string  `json:"evidence"`
	// Missing is what the row claims and no test proves yet.
	Missing string `json:"missing,omitempty"`
}

// Observe returns an observation of a row of the table conformance, as ObserveIn does.
func Observe(t *testing.T, id string) *Observation {
	t.Helper()
	return ObserveIn(t, "conformance", id)
}

// ObserveIn returns an observation for the test to fill; it is written when the test ends, and passes when the test does.
// A test that is skipped observes nothing.
func ObserveIn(t *testing.T, table, id string) *Observation {
	t.Helper()
	started := time.Now()
	observation := &Observation{Table: table, ID: id, Part: t.Name(), Evidence: t.Name()}
	t.Cleanup(func() {
		if t.Skipped() {
			return
		}
		observation.Pass = !t.Failed()
		observation.Seconds = time.Since(started).Round(10 * time.Millisecond).Seconds()
		if t.Failed() {
			observation.Observed = "the test failed: " + observation.Observed
		}
		line, err := json.Marshal(observation)
		if err != nil {
			t.Error(err)
		}
		t.Log(Prefix + string(line))
	})
	return observation
}
