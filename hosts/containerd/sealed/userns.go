package sealed

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// holder is the name under which containerd starts itself to hold a user namespace until it is opened. Upstream stops a
// process by ptrace for that, and no process of a host may use ptrace.
const holder = "palisade-user-namespace"

// HoldNamespace returns false, unless this process was started to hold a user namespace. Then it returns true when the
// process has to end. main calls it first.
func HoldNamespace() bool {
	if os.Args[0] != holder {
		return false
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// userNamespace creates a user namespace with these mappings. Each mapping is <first inside>:<first outside>:<count>,
// and commas separate several of them.
func userNamespace(uidMap, gidMap string) (*os.File, error) {
	uids, err := parseMappings(uidMap)
	if err != nil {
		return nil, fmt.Errorf("uidmap: %w", err)
	}
	gids, err := parseMappings(gidMap)
	if err != nil {
		return nil, fmt.Errorf("gidmap: %w", err)
	}
	command := exec.Command("/proc/self/exe")
	command.Args = []string{holder}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids, Pdeathsig: syscall.SIGKILL,
	}
	hold, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", command.Process.Pid))
	_ = hold.Close()
	// Its exit status does not matter, because the namespace is already open.
	_ = command.Wait()
	return namespace, err
}

func parseMappings(text string) ([]syscall.SysProcIDMap, error) {
	var mappings []syscall.SysProcIDMap
	for mapping := range strings.SplitSeq(text, ",") {
		fields := strings.Split(mapping, ":")
		if len(fields) != 3 {
			return nil, fmt.Errorf("%q is not of the form inside:outside:count", mapping)
		}
		var numbers [3]int
		for index, field := range fields {
			number, err := strconv.ParseUint(field, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", mapping, err)
			}
			numbers[index] = int(number)
		}
		mappings = append(mappings, syscall.SysProcIDMap{ContainerID: numbers[0], HostID: numbers[1], Size: numbers[2]})
	}
	return mappings, nil
}
