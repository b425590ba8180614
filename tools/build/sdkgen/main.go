// Command sdkgen writes the TypeScript SDK of Palisade's provider (sdk) from its Pulumi schema with Pulumi's
// official Node.js generator. The generated files lie inside this repository's own package, so the generator's
// package.json, tsconfig.json and README are left out and the two places that look for a package.json are adapted.
//
//	go run . -schema ../../../provider/schema.json -output ../../../sdk [-check]
package main

import (
	"encoding/json"
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
	check := flag.Bool("check", false, "write nothing; fail when the folder differs from what would be written")
	flag.Parse()
	if err := run(*schemaFile, *output, *check); err != nil {
		fmt.Fprintln(os.Stderr, "sdkgen:", err)
		os.Exit(1)
	}
}

func run(schemaFile, output string, check bool) error {
	files, err := generate(schemaFile)
	if err != nil {
		return err
	}
	if check {
		return compare(files, output)
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

// generate returns the SDK's files by path.
func generate(schemaFile string) (map[string][]byte, error) {
	raw, err := os.ReadFile(schemaFile)
	if err != nil {
		return nil, err
	}
	var spec schema.PackageSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	pkg, diagnostics, err := schema.BindSpec(spec, noOtherPackages{}, schema.ValidationOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", schemaFile, err)
	}
	if diagnostics.HasErrors() {
		return nil, fmt.Errorf("%s: %w", schemaFile, diagnostics)
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
