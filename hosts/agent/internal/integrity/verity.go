package integrity

import (
	"fmt"
	"slices"
	"strings"
)

// verityTarget is one dm-verity device as the kernel gives it.
type verityTarget struct {
	name string
	// major:minor as in mountinfo.
	device string
	// Whole line as `dmsetup table` prints it: start, length, target, parameters.
	table      string
	parameters string
}

// mountPoints maps major:minor to where a file system of that device is mounted.
func mountPoints(mountInfo string) map[string][]string {
	points := map[string][]string{}
	for line := range strings.Lines(mountInfo) {
		// proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, …
		fields := strings.Fields(line)
		if len(fields) > 4 {
			points[fields[2]] = append(points[fields[2]], fields[4])
		}
	}
	return points
}

// systemDevice picks the verity device of / or, failing that, of /usr.
func systemDevice(targets []verityTarget, points map[string][]string) (*verityTarget, string) {
	for _, wanted := range []string{"/", "/usr"} {
		for index, target := range targets {
			if slices.Contains(points[target.device], wanted) {
				return &targets[index], wanted
			}
		}
	}
	return nil, ""
}

// parseVerityTable returns the root hash and whether the kernel checked a signature of it. Parameters are those of the kernel's
// admin-guide/device-mapper/verity: version, two devices, two block sizes, two counts, algorithm, root hash, salt, options.
func parseVerityTable(parameters string) (rootHash string, signed bool) {
	fields := strings.Fields(parameters)
	if len(fields) < 10 {
		return "", false
	}
	return fields[8], slices.Contains(fields[10:], "root_hash_sig_key_desc")
}

func tableLine(start, length uint64, target, parameters string) string {
	return fmt.Sprintf("%d %d %s %s", start, length, target, parameters)
}
