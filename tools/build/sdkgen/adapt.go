package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

// versionLookup is how the generator's SDK finds its version: in a package.json beside it, which ours does not have.
const versionLookup = "require('./package.json').version"

// adapt changes what assumes that the SDK is a package of its own.
func adapt(name, content string, spec schema.PackageSpec) (string, error) {
	if name != "utilities.ts" {
		return content, nil
	}
	if strings.Count(content, versionLookup) != 1 {
		return "", fmt.Errorf("utilities.ts: expected %q once; the generator has changed", versionLookup)
	}
	return strings.Replace(content, versionLookup, fmt.Sprintf("%q", spec.Version), 1), nil
}

// compareFile fails when a file is not what would be written.
func compareFile(content []byte, file string) error {
	present, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(present, content) {
		return fmt.Errorf("%s is not what the schema generates; run `make generate`", file)
	}
	return nil
}

// compare fails with the names of the files in which the folder differs from what would be written.
func compare(files map[string][]byte, output string) error {
	var different []string
	for name, content := range files {
		present, err := os.ReadFile(filepath.Join(output, name))
		if err != nil || !bytes.Equal(present, content) {
			different = append(different, name)
		}
	}
	err := filepath.WalkDir(output, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(output, path)
		if _, wanted := files[name]; err == nil && !wanted {
			different = append(different, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(different) > 0 {
		sort.Strings(different)
		return fmt.Errorf("%s is not what the schema generates; run `make generate`: %s", output, strings.Join(different, ", "))
	}
	return nil
}
