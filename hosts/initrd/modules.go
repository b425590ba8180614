package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleIndex is the content of modules.dep, modules.alias and modules.builtin, by module name with underscores.
type moduleIndex struct {
	// files are the modules' paths relative to the folder of the kernel's modules.
	files map[string]string
	// dependencies must be loaded first. They are in the order of modules.dep, in which the last one is loaded first.
	dependencies map[string][]string
	builtin      map[string]bool
	// aliases are in the order of modules.alias.
	aliases []moduleAlias
}

// moduleAlias is a pattern for the aliases of devices that a module drives.
type moduleAlias struct {
	pattern, module string
}

// moduleName converts the file name of a module to the name that the kernel uses.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
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
	aliases, err := os.ReadFile(filepath.Join(folder, "modules.alias"))
	if err != nil {
		return moduleIndex{}, err
	}
	return parseModuleIndex(string(dependencies), string(aliases), string(builtin)), nil
}

func parseModuleIndex(dependencies, aliases, builtin string) moduleIndex {
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
	for _, line := range strings.Split(aliases, "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "alias" {
			index.aliases = append(index.aliases, moduleAlias{pattern: fields[1], module: fields[2]})
		}
	}
	for _, file := range strings.Fields(builtin) {
		index.builtin[moduleName(file)] = true
	}
	return index
}

// drivers returns the modules for devices with these aliases, each once.
func (index moduleIndex) drivers(devices []string) []string {
	var drivers []string
	for _, device := range devices {
		for _, alias := range index.aliases {
			// Aliases of devices have no slash, which this kind of pattern treats in its own way.
			matches, err := path.Match(alias.pattern, device)
			if err == nil && matches && !slices.Contains(drivers, alias.module) {
				drivers = append(drivers, alias.module)
			}
		}
	}
	return drivers
}

// deviceAliases returns the aliases of all devices that the kernel has found, sorted, each once.
func deviceAliases(buses string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(buses, "*/devices/*/modalias"))
	if err != nil {
		return nil, err
	}
	var aliases []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			// Devices may go away at any time.
			continue
		}
		if alias := strings.TrimSpace(string(content)); alias != "" {
			aliases = append(aliases, alias)
		}
	}
	slices.Sort(aliases)
	return slices.Compact(aliases), nil
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
