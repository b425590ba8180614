// Cyclonus' NetworkPolicy cases and its own oracle, as JSON for our conformance tests.
//
//	cyclonus cases 4|6    the generated cases with the expected verdicts of each step, for pods with IPv4 or IPv6
//	cyclonus verdicts     for each line of standard input, policies and tuples, a line with the verdicts on these
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
)

func main() {
	logrus.SetOutput(io.Discard)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cyclonus: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	out := bufio.NewWriter(os.Stdout)
	switch {
	case len(args) == 2 && args[0] == "cases" && (args[1] == "4" || args[1] == "6"):
		cases, err := allCases(args[1])
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(cases); err != nil {
			return err
		}
	case len(args) == 1 && args[0] == "verdicts":
		if err := answer(os.Stdin, out); err != nil {
			return err
		}
	default:
		return fmt.Errorf("usage: cyclonus cases 4|6, or cyclonus verdicts")
	}
	return out.Flush()
}
