package integrity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The device mapper's ioctl interface, version 4 (linux/dm-ioctl.h): a header of 312 bytes, then the data, in one buffer.
const (
	dmHeaderSize      = 312
	dmBufferSize      = 64 << 10
	dmNameOffset      = 48
	dmNameSize        = 128
	dmStatusTableFlag = 1 << 4
	dmBufferFullFlag  = 1 << 8

	dmListDevices = 2
	dmTableStatus = 12
)

// dmIoctl is _IOWR(0xfd, command, struct dm_ioctl).
func dmIoctl(command uintptr) uintptr {
	return 3<<30 | dmHeaderSize<<16 | 0xfd<<8 | command
}

func dmCall(control *os.File, command uintptr, name string, flags uint32) ([]byte, error) {
	buffer := make([]byte, dmBufferSize)
	native := binary.NativeEndian
	native.PutUint32(buffer[0:], 4)
	native.PutUint32(buffer[12:], dmBufferSize)
	native.PutUint32(buffer[16:], dmHeaderSize)
	native.PutUint32(buffer[28:], flags)
	if len(name) >= dmNameSize {
		return nil, fmt.Errorf("device name %q is too long", name)
	}
	copy(buffer[dmNameOffset:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmIoctl(command), uintptr(unsafe.Pointer(&buffer[0])))
	if errno != 0 {
		return nil, fmt.Errorf("device mapper call %d: %w", command, errno)
	}
	if native.Uint32(buffer[28:])&dmBufferFullFlag != 0 {
		return nil, fmt.Errorf("device mapper call %d: answer exceeds %d bytes", command, dmBufferSize)
	}
	return buffer, nil
}

// verityTargets lists the verity devices of the host; needs CAP_SYS_ADMIN.
func verityTargets(controlPath string) ([]verityTarget, error) {
	// Reading is enough to ask; the kernel looks at the capability only.
	control, err := os.Open(controlPath)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	list, err := dmCall(control, dmListDevices, "", 0)
	if err != nil {
		return nil, err
	}
	var targets []verityTarget
	for _, device := range parseNameList(list) {
		status, err := dmCall(control, dmTableStatus, device.name, dmStatusTableFlag)
		if err != nil {
			return nil, err
		}
		if target, found := parseTable(status, device); found {
			targets = append(targets, target)
		}
	}
	return targets, nil
}

// parseNameList reads a chain of struct dm_name_list: device number, offset of the next, name.
func parseNameList(buffer []byte) []verityTarget {
	native := binary.NativeEndian
	var devices []verityTarget
	position := int(native.Uint32(buffer[16:]))
	for position+12 < len(buffer) {
		number := native.Uint64(buffer[position:])
		if number == 0 {
			break
		}
		next := int(native.Uint32(buffer[position+8:]))
		devices = append(devices, verityTarget{
			name:   terminated(buffer[position+12:]),
			device: fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)),
		})
		if next == 0 {
			break
		}
		position += next
	}
	return devices
}

// parseTable reads the first struct dm_target_spec; a verity device has exactly one target.
func parseTable(buffer []byte, device verityTarget) (verityTarget, bool) {
	native := binary.NativeEndian
	count := native.Uint32(buffer[20:])
	position := int(native.Uint32(buffer[16:]))
	if count != 1 || position+40 > len(buffer) {
		return verityTarget{}, false
	}
	start, length := native.Uint64(buffer[position:]), native.Uint64(buffer[position+8:])
	kind := terminated(buffer[position+24 : position+40])
	if kind != "verity" {
		return verityTarget{}, false
	}
	device.parameters = terminated(buffer[position+40:])
	device.table = tableLine(start, length, kind, device.parameters)
	return device, true
}

func terminated(buffer []byte) string {
	if end := bytes.IndexByte(buffer, 0); end >= 0 {
		return string(buffer[:end])
	}
	return string(buffer)
}
