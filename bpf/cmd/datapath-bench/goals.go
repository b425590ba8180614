package main

import "fmt"

// Goal is a ratio to reach. Each sample belongs to one turn, in which both rungs ran under the same load of the
// machine.
type Goal struct {
	Name  string   `json:"name"`
	Ratio Interval `json:"ratio"`
	// AtLeast and AtMost bound the ratio; zero means that there is no bound.
	AtLeast float64 `json:"atLeast,omitempty"`
	AtMost  float64 `json:"atMost,omitempty"`
	// Holds means that the median is within the bounds, and Shown that its whole interval is.
	Holds bool `json:"holds"`
	Shown bool `json:"shown"`
}

type measured struct {
	of      func(sample) float64
	measure string
}

var (
	streams    = measured{func(s sample) float64 { return s.StreamGbit }, "stream"}
	roundTrip  = measured{func(s sample) float64 { return s.RoundTripP50 }, "round trip p50"}
	connecting = measured{func(s sample) float64 { return s.Connects }, "connects per second"}
)

// String returns the goal's line in the table at the end of a run.
func (g Goal) String() string {
	verdict := "missed"
	if g.Shown {
		verdict = "holds"
	} else if g.Holds {
		verdict = "holds, not shown: the interval is wider"
	}
	bounds := ""
	if g.AtLeast != 0 {
		bounds = fmt.Sprintf(" at least %.2f", g.AtLeast)
	}
	if g.AtMost != 0 {
		bounds += fmt.Sprintf(" at most %.2f", g.AtMost)
	}
	return fmt.Sprintf("%s: %.2f (%.2f to %.2f),%s: %s", g.Name, g.Ratio.Median, g.Ratio.Low, g.Ratio.High, bounds, verdict)
}

// turns are the samples of the rungs, in the order of the turns.
type turns struct {
	rungs   []rung
	samples [][]sample
}

// find returns the samples of a rung, or nothing for a rung that was skipped.
func (t turns) find(rung end) []sample {
	for i, found := range t.rungs {
		if found.name == rung.name && found.rules == rung.rules {
			return t.samples[i]
		}
	}
	return nil
}

type end struct {
	name  string
	rules int
}

// add appends a goal, unless one of its rungs was skipped.
func (t turns) add(goals *[]Goal, what measured, ours, other end, atLeast, atMost float64) {
	numerators, denominators := t.find(ours), t.find(other)
	if numerators == nil || denominators == nil {
		return
	}
	var ratios []float64
	for i := range numerators {
		ratios = append(ratios, what.of(numerators[i])/what.of(denominators[i]))
	}
	ratio := intervalOf(ratios)
	within := func(value float64) bool { return value >= atLeast && (atMost == 0 || value <= atMost) }
	*goals = append(*goals, Goal{
		Name:  fmt.Sprintf("%s, %s with %d rules against %s with %d", what.measure, ours.name, ours.rules, other.name, other.rules),
		Ratio: ratio, AtLeast: atLeast, AtMost: atMost,
		Holds: within(ratio.Median), Shown: within(ratio.Low) && within(ratio.High),
	})
}

// ladderGoals returns the goals of the ladder: no loss compared with a bare link, and no slower than others on a
// bridge.
func ladderGoals(t turns) (goals []Goal) {
	for _, name := range []string{"palisade, policy and events", "palisade on netkit"} {
		ours := end{name, 2}
		t.add(&goals, streams, ours, end{"veth pair", 0}, 0.95, 0)
		t.add(&goals, roundTrip, ours, end{"veth pair", 0}, 0, 1.10)
		t.add(&goals, connecting, ours, end{"bridge and nft sets", 2}, 1, 0)
		t.add(&goals, connecting, ours, end{"bridge and iptables", 2}, 1.3, 0)
	}
	return goals
}

// scalingGoals returns the same goals at each number of rules, and a goal that the number of rules hardly matters.
func scalingGoals(t turns, most int) (goals []Goal) {
	last := 0
	for rules := 10; rules <= most; rules *= 10 {
		last = rules
		t.add(&goals, connecting, end{"palisade", rules}, end{"nft sets", rules}, 1, 0)
		t.add(&goals, connecting, end{"palisade", rules}, end{"iptables", rules}, 1.3, 0)
	}
	if last == 10 {
		return goals
	}
	for _, what := range []measured{streams, roundTrip, connecting} {
		t.add(&goals, what, end{"palisade", last}, end{"palisade", 10}, 0.95, 1.05)
	}
	return goals
}
