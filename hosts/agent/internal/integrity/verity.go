package integrity

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/verity"
)

// verityDevices lists the verity devices of the host. It needs CAP_SYS_ADMIN.
func verityDevices(control string) ([]devicemapper.Device, error) {
	mapper, err := devicemapper.Open(control)
	if err != nil {
		return nil, err
	}
	defer mapper.Close()
	devices, err := mapper.List()
	return slices.DeleteFunc(devices, func(device devicemapper.Device) bool {
		return device.Target == nil || device.Target.Kind != "verity"
	}), err
}

// readVerity describes the verity device of the running system and the devices of layers.
func (r Reader) readVerity() (*agentv1.VerityDevice, []*agentv1.LayerDevice) {
	root := &agentv1.VerityDevice{SignaturesRequired: isTrue(r.text("sys/module/dm_verity/parameters/require_signatures"))}
	devices, err := verityDevices(r.path("dev/mapper/control"))
	if err != nil {
		slog.Warn("device mapper cannot be asked", "error", err)
		return root, nil
	}
	if found, mountPoint := systemDevice(devices, mountPoints(r.text("proc/self/mountinfo"))); found != nil {
		root.Name = found.Name
		root.MountPoint = mountPoint
		root.Table = fmt.Sprintf("0 %d %s %s", found.Target.Sectors, found.Target.Kind, found.Target.Parameters)
		root.RootHash, root.SignatureVerified = verity.Signed(found.Target.Parameters)
	}
	return root, layerDevices(devices)
}

// layerDevices describes the devices of layers, sorted by name.
func layerDevices(devices []devicemapper.Device) []*agentv1.LayerDevice {
	var layers []*agentv1.LayerDevice
	for _, device := range devices {
		if !strings.HasPrefix(device.Name, seal.DevicePrefix) {
			continue
		}
		layer := &agentv1.LayerDevice{Name: device.Name, OpenCount: uint32(max(device.OpenCount, 0)), Corrupted: verity.Corrupted(device.Status)}
		layer.RootHash, layer.SignatureVerified = verity.Signed(device.Target.Parameters)
		layers = append(layers, layer)
	}
	slices.SortFunc(layers, func(a, b *agentv1.LayerDevice) int { return strings.Compare(a.GetName(), b.GetName()) })
	return layers
}

// mountPoints maps major:minor to the mount points of that device's file systems.
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

// systemDevice returns the verity device of / or, if there is none, of /usr.
func systemDevice(devices []devicemapper.Device, points map[string][]string) (*devicemapper.Device, string) {
	for _, wanted := range []string{"/", "/usr"} {
		for index, device := range devices {
			if slices.Contains(points[device.MajorMinor()], wanted) {
				return &devices[index], wanted
			}
		}
	}
	return nil, ""
}
