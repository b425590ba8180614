package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleIndex is the content of modules.dep and modules.builtin, by module name with underscores.
type moduleIndex struct {
	// files are the modules' paths relative to the folder of the kernel's modules.
	files map[string]string
	// dependencies must be loaded first. They are in the order of modules.dep, in which the last one is loaded first.
	dependencies map[string][]string
	builtin      map[string]bool
}

// moduleName converts the file name of a module to the name that the kernel uses.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

func readModuleIndex(folder string) (moduleIndex, error) {
	dependencies, err := os.ReadFile(filepath.Join(folder, "modules.dep"))
	if err != nil {
		return moduleIndex{}, err
	}
	builtin, err := os.ReadFile(filepath.Join(folder, "modules.builtin"))
	if err != nil {
		return moduleIndex{}, err
	}
	return parseModuleIndex(string(dependencies), string(builtin)), nil
}

func parseModuleIndex(dependencies, builtin string) moduleIndex {
	index := moduleIndex{files: map[string]string{}, dependencies: map[string][]string{}, builtin: map[string]bool{}}
	for _, line := range strings.Split(dependencies, "\n") {
		file, rest, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		name := moduleName(file)
		index.files[name] = file
		for _, dependency := range strings.Fields(rest) {
			index.dependencies[name] = append(index.dependencies[name], moduleName(dependency))
		}
	}
	for _, file := range strings.Fields(builtin) {
		index.builtin[moduleName(file)] = true
	}
	return index
}

// moduleParameters returns the parameters of a module from the kernel command line. The kernel applies `module.name=`
// to built-in code only, so the loader passes them to loadable modules.
func moduleParameters(commandLine, module string) string {
	var parameters []string
	for _, word := range strings.Fields(commandLine) {
		prefix, parameter, found := strings.Cut(word, ".")
		if found && strings.ReplaceAll(prefix, "-", "_") == module {
			parameters = append(parameters, parameter)
		}
	}
	return strings.Join(parameters, " ")
}

type moduleLoader struct {
	folder      string
	index       moduleIndex
	commandLine string
	loaded      map[string]bool
}

func (l *moduleLoader) load(module string) error {
	if l.loaded[module] || l.index.builtin[module] {
		return nil
	}
	l.loaded[module] = true
	file, found := l.index.files[module]
	if !found {
		return fmt.Errorf("module %s is not in the initrd", module)
	}
	dependencies := l.index.dependencies[module]
	for i := len(dependencies) - 1; i >= 0; i-- {
		if err := l.load(dependencies[i]); err != nil {
			return err
		}
	}
	f, err := os.Open(filepath.Join(l.folder, file))
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), moduleParameters(l.commandLine, module), flags)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", module, err)
	}
	return nil
}
