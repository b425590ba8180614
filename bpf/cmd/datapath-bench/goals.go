package main

import "fmt"

// Goal is a ratio that is aimed at. Each of its samples is of one turn, in which both rungs met the same moment of the machine.
type Goal struct {
	Name  string   `json:"name"`
	Ratio Interval `json:"ratio"`
	// AtLeast and AtMost bound it; zero: no bound.
	AtLeast float64 `json:"atLeast,omitempty"`
	AtMost  float64 `json:"atMost,omitempty"`
	// Holds says that the median is within the bounds, Shown that its whole interval is.
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

// String is a line of the table that ends a run.
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

// turns are the samples of rungs, in the order of the turns.
type turns struct {
	rungs   []rung
	samples [][]sample
}

func (t turns) find(name string, rules int) ([]sample, error) {
	for i, each := range t.rungs {
		if each.name == name && each.rules == rules {
			return t.samples[i], nil
		}
	}
	return nil, fmt.Errorf("there is no rung %q with %d rules", name, rules)
}

type end struct {
	name  string
	rules int
}

func (t turns) goal(what measured, ours, other end, atLeast, atMost float64) (Goal, error) {
	goal := Goal{
		Name:    fmt.Sprintf("%s, %s with %d rules against %s with %d", what.measure, ours.name, ours.rules, other.name, other.rules),
		AtLeast: atLeast, AtMost: atMost,
	}
	numerators, err := t.find(ours.name, ours.rules)
	if err != nil {
		return goal, err
	}
	denominators, err := t.find(other.name, other.rules)
	if err != nil {
		return goal, err
	}
	var ratios []float64
	for i := range numerators {
		ratios = append(ratios, what.of(numerators[i])/what.of(denominators[i]))
	}
	goal.Ratio = intervalOf(ratios)
	within := func(value float64) bool { return value >= atLeast && (atMost == 0 || value <= atMost) }
	goal.Holds = within(goal.Ratio.Median)
	goal.Shown = within(goal.Ratio.Low) && within(goal.Ratio.High)
	return goal, nil
}

// ladderGoals: nothing lost against a bare link, and no slower than what others do on a bridge.
func ladderGoals(t turns) (goals []Goal, err error) {
	ours := end{"palisade, policy and events", 2}
	for _, each := range []struct {
		what            measured
		other           end
		atLeast, atMost float64
	}{
		{streams, end{"veth pair", 0}, 0.95, 0},
		{roundTrip, end{"veth pair", 0}, 0, 1.10},
		{connecting, end{"bridge and nft sets", 2}, 1, 0},
		{connecting, end{"bridge and iptables", 2}, 1.3, 0},
	} {
		goal, err := t.goal(each.what, ours, each.other, each.atLeast, each.atMost)
		if err != nil {
			return nil, err
		}
		goals = append(goals, goal)
	}
	return goals, nil
}

// scalingGoals: the same at each number of rules, and next to no change from the fewest to the most.
func scalingGoals(t turns, most int) (goals []Goal, err error) {
	add := func(what measured, ours, other end, atLeast, atMost float64) {
		goal, failure := t.goal(what, ours, other, atLeast, atMost)
		if err == nil {
			err = failure
		}
		goals = append(goals, goal)
	}
	last := 0
	for rules := 10; rules <= most; rules *= 10 {
		last = rules
		add(connecting, end{"palisade", rules}, end{"nft sets", rules}, 1, 0)
		add(connecting, end{"palisade", rules}, end{"iptables", rules}, 1.3, 0)
	}
	for _, what := range []measured{streams, roundTrip, connecting} {
		add(what, end{"palisade", last}, end{"palisade", 10}, 0.95, 1.05)
	}
	return goals, err
}
