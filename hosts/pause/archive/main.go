// Command archive puts one static program into an OCI image archive (OCI image layout in a tar). The result depends
// only on the program's bytes and the reference, not on times, users or the order of a file system.
//
//	go run ./hosts/pause/archive -program pause -reference palisade.internal/pause:1 -output pause.oci.tar
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	program := flag.String("program", "", "static program that becomes /pause, the entry point")
	reference := flag.String("reference", "palisade.internal/pause:1", "name that containerd gives to the image")
	output := flag.String("output", "", "archive to write")
	flag.Parse()
	if err := run(*program, *reference, *output); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

func run(program, reference, output string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("-program: %w", err)
	}
	archive, err := build(content, reference)
	if err != nil {
		return err
	}
	if err := os.WriteFile(output, archive, 0o644); err != nil {
		return fmt.Errorf("-output: %w", err)
	}
	return nil
}
