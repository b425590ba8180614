package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unitFolder holds the units of the image that are not the distribution's.
const unitFolder = "mkosi/mkosi.extra/usr/lib/systemd/system"

// exposure is what `systemd-analyze security` may say at most of a unit, in tenths: 0 is no exposure, 100 is none of
// its settings. The figures are those of systemd 252; later versions say less. SECURITY.md shows them.
var exposure = map[string]int{
	"palisade-api.service":       14,
	"palisade-groups.service":    6,
	"palisade-images.service":    12,
	"palisade-integrity.service": 13,
	"palisade-netd.service":      22,
	"palisade-template.service":  20,
	// It mounts for everybody, at the start only.
	"palisade-noexec.service": 33,
	// It makes containers in the host's own namespaces, and what holds it holds them.
	"containerd.service": 81,
}

// withoutProcess are the units that ask the service manager for something and run nothing of the agent's.
var withoutProcess = []string{"emergency.service", "palisade-poweroff.service", "palisade-reboot.service"}

// required are the directives of every role of the agent. A role that cannot have one is in the exceptions, with the
// reason.
var required = map[string]string{
	"DevicePolicy":            "closed",
	"ExecPaths":               "/usr/bin/palisade-agent",
	"LockPersonality":         "yes",
	"MemoryDenyWriteExecute":  "yes",
	"NoExecPaths":             "/",
	"NoNewPrivileges":         "yes",
	"PrivateIPC":              "yes",
	"PrivateTmp":              "yes",
	"ProtectClock":            "yes",
	"ProtectControlGroups":    "yes",
	"ProtectHome":             "yes",
	"ProtectHostname":         "yes",
	"ProtectKernelLogs":       "yes",
	"ProtectKernelModules":    "yes",
	"ProtectKernelTunables":   "yes",
	"ProtectProc":             "invisible",
	"ProtectSystem":           "strict",
	"RemoveIPC":               "yes",
	"RestrictNamespaces":      "yes",
	"RestrictRealtime":        "yes",
	"RestrictSUIDSGID":        "yes",
	"SystemCallArchitectures": "native",
	"SystemCallErrorNumber":   "EPERM",
	"UMask":                   "0077",
}

var exceptions = map[string]map[string]string{
	// It reads in which cgroup a container runs.
	"palisade-groups.service": {"ProtectProc": ""},
	// Layers are read by containerd and by the role groups.
	"palisade-images.service": {"UMask": "0022"},
	// Its pins lie below /sys; ReadOnlyPaths= closes the rest. It enters the network namespaces of containers.
	"palisade-netd.service": {"ProtectKernelTunables": "", "RestrictNamespaces": "net"},
	// It sets the clock of a clone.
	"palisade-template.service": {"ProtectClock": ""},
}

// privileges are the capabilities and devices of each role; nothing else may have any.
var privileges = map[string]struct{ capabilities, devices string }{
	"palisade-api.service":       {"", "char-virtio-portsdev rw"},
	"palisade-groups.service":    {"", ""},
	"palisade-images.service":    {"", ""},
	"palisade-integrity.service": {"CAP_SYS_ADMIN", "/dev/mapper/control rw"},
	"palisade-netd.service":      {"CAP_BPF CAP_NET_ADMIN CAP_SYS_ADMIN", ""},
	"palisade-template.service":  {"CAP_SYS_ADMIN CAP_SYS_TIME", "char-virtio-portsdev rw"},
}

// ownUnits are the names of the services that the image adds.
func ownUnits(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(unitFolder, "*.service"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		names = append(names, filepath.Base(file))
	}
	return names
}

// directives returns the values of each directive of a section, in their order.
func directives(t *testing.T, unit, section string) map[string][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(unitFolder, unit))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	in := ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if name, found := strings.CutPrefix(line, "["); found {
			in = strings.TrimSuffix(name, "]")
		} else if name, value, found := strings.Cut(line, "="); found && in == section && !strings.HasPrefix(line, "#") {
			values[name] = append(values[name], value)
		}
	}
	return values
}

func TestEveryUnitHasALimitOfExposure(t *testing.T) {
	for _, unit := range ownUnits(t) {
		_, limited := exposure[unit]
		if limited == slices.Contains(withoutProcess, unit) {
			t.Errorf("%s: a unit has a limit, or runs no process of its own", unit)
		}
	}
}

func TestRolesHaveTheRequiredDirectives(t *testing.T) {
	for unit, privileged := range privileges {
		t.Run(unit, func(t *testing.T) {
			service := directives(t, unit, "Service")
			if service["PrivateDevices"] != nil {
				// It implies a closed policy.
				service["DevicePolicy"] = []string{"closed"}
			}
			for name, value := range required {
				if exception, found := exceptions[unit][name]; found {
					value = exception
				}
				if got := strings.Join(service[name], " "); got != value {
					t.Errorf("%s=%s, expected %q", name, got, value)
				}
			}
			if got := strings.Join(service["CapabilityBoundingSet"], " "); got != privileged.capabilities || service["CapabilityBoundingSet"] == nil {
				t.Errorf("CapabilityBoundingSet=%s", got)
			}
			if got := strings.Join(service["DeviceAllow"], " "); got != privileged.devices {
				t.Errorf("DeviceAllow=%s", got)
			}
			filters := service["SystemCallFilter"]
			if len(filters) < 3 || filters[0] != "@system-service" || filters[1] != "~@privileged @resources @aio @keyring @memlock" {
				t.Errorf("SystemCallFilter=%q", filters)
			}
			network := service["PrivateNetwork"] != nil || service["IPAddressDeny"] != nil
			if families := strings.Join(service["RestrictAddressFamilies"], " "); families == "" || strings.Contains(families, "INET") == network {
				t.Errorf("RestrictAddressFamilies=%s", families)
			}
			if !strings.Contains(strings.Join(service["InaccessiblePaths"], " "), "-/run/systemd/private") {
				t.Error("the service manager's socket is in reach")
			}
		})
	}
}

// With CAP_NET_ADMIN and a cgroup's folder, the program that refuses devices can be detached from the cgroup.
func TestNetdReachesNeitherDevicesNorCgroups(t *testing.T) {
	service := directives(t, "palisade-netd.service", "Service")
	if strings.Join(service["PrivateDevices"], "") != "yes" || !strings.Contains(strings.Join(service["InaccessiblePaths"], " "), "-/sys/fs/cgroup") {
		t.Errorf("%q", service)
	}
}

// analyze returns the exposure of a unit file in tenths, and fails when it is above the limit.
func analyze(t *testing.T, file string, limit int) (string, error) {
	t.Helper()
	command := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", fmt.Sprintf("--threshold=%d", limit), file)
	command.Env = append(os.Environ(), "LC_ALL=C")
	output, err := command.CombinedOutput()
	found := regexp.MustCompile(`exposure level for \S+: ([0-9]+)\.([0-9])`).FindSubmatch(output)
	if found == nil {
		t.Fatalf("%v: %s", err, output)
	}
	return string(found[1]) + string(found[2]), err
}

// systemd's own judgement. Where it is missing the test fails, because nothing else shows what a changed unit means.
func TestExposureOfUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: sudo apt-get install systemd")
	}
	for unit, limit := range exposure {
		if found, err := analyze(t, filepath.Join(unitFolder, unit), limit); err != nil {
			t.Errorf("%s: exposure of %s tenths, more than %d", unit, found, limit)
		}
	}
	// What a limit is worth: the same unit without one of its directives is above it.
	content, err := os.ReadFile(filepath.Join(unitFolder, "palisade-api.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, directive := range []string{"CapabilityBoundingSet=", "ProtectSystem=strict", "RestrictNamespaces=yes", "PrivateUsers=yes"} {
		file := filepath.Join(t.TempDir(), "palisade-api.service")
		changed := strings.Replace(string(content), "\n"+directive+"\n", "\n", 1)
		if changed == string(content) {
			t.Fatalf("%s is no line of the unit", directive)
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		if found, err := analyze(t, file, exposure["palisade-api.service"]); err == nil {
			t.Errorf("without %s the exposure is %s tenths, and passes", directive, found)
		}
	}
}

// The table of SECURITY.md is that of this test.
func TestExposureIsDocumented(t *testing.T) {
	content, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+\\.service)` \\| (\\d+)\\.(\\d) \\|").FindAllStringSubmatch(string(content), -1) {
		var whole, tenth int
		if _, err := fmt.Sscan(row[2]+" "+row[3], &whole, &tenth); err != nil {
			t.Fatal(err)
		}
		documented[row[1]] = 10*whole + tenth
	}
	for unit, limit := range exposure {
		if documented[unit] != limit {
			t.Errorf("%s: %d tenths in SECURITY.md, %d here", unit, documented[unit], limit)
		}
	}
	if len(documented) != len(exposure) {
		t.Errorf("%v", documented)
	}
}
