// Command sdkgen writes what is made from the Pulumi schema of Palisade's provider: the TypeScript SDK (sdk), with
// Pulumi's official Node.js generator, and the types of the resources' inputs (provider/schema/inputs.ts). The SDK's
// files lie inside this repository's own package, so the generator's package.json, tsconfig.json and README are left
// out and the two places that look for a package.json are adapted.
//
//	go run . -schema ../../../provider/schema.json -output ../../../sdk \
//		-inputs ../../../provider/schema/inputs.ts [-check]
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

func main() {
	schemaFile := flag.String("schema", "provider/schema.json", "Pulumi schema")
	output := flag.String("output", "sdk", "folder to write; its other files are removed")
	inputs := flag.String("inputs", "provider/schema/inputs.ts", "file to write the types of inputs to")
	check := flag.Bool("check", false, "write nothing; fail when something differs from what would be written")
	flag.Parse()
	if err := run(*schemaFile, *output, *inputs, *check); err != nil {
		fmt.Fprintln(os.Stderr, "sdkgen:", err)
		os.Exit(1)
	}
}

func run(schemaFile, output, inputsFile string, check bool) error {
	spec, err := read(schemaFile)
	if err != nil {
		return err
	}
	files, err := generate(spec)
	if err != nil {
		return fmt.Errorf("%s: %w", schemaFile, err)
	}
	inputs, err := inputTypes(spec)
	if err != nil {
		return fmt.Errorf("%s: %w", schemaFile, err)
	}
	if check {
		return errors.Join(compare(files, output), compareFile(inputs, inputsFile))
	}
	if err := os.WriteFile(inputsFile, inputs, 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(output); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(output, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func read(schemaFile string) (schema.PackageSpec, error) {
	var spec schema.PackageSpec
	raw, err := os.ReadFile(schemaFile)
	if err != nil {
		return spec, err
	}
	if err := json.Unmarshal(raw, &spec); err != nil {
		return spec, fmt.Errorf("%s: %w", schemaFile, err)
	}
	return spec, nil
}

// generate returns the SDK's files by path.
func generate(spec schema.PackageSpec) (map[string][]byte, error) {
	pkg, diagnostics, err := schema.BindSpec(spec, noOtherPackages{}, schema.ValidationOptions{})
	if err != nil {
		return nil, err
	}
	if diagnostics.HasErrors() {
		return nil, diagnostics
	}
	generated, err := nodejs.GeneratePackage("sdkgen", pkg, nil, nil, false, nil)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, content := range generated {
		if !strings.HasSuffix(name, ".ts") {
			continue
		}
		adapted, err := adapt(name, string(content), spec)
		if err != nil {
			return nil, err
		}
		files[name] = []byte(adapted)
	}
	return files, nil
}
