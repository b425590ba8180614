// Package devicemapper creates, lists and removes devices of the kernel's device mapper through its ioctl interface,
// version 4 (include/uapi/linux/dm-ioctl.h). Hosts have neither dmsetup nor udev rules for it.
package devicemapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Control is the path of the device mapper's control node.
const Control = "/dev/mapper/control"

const (
	headerSize  = 312
	targetSize  = 40
	bufferSize  = 64 << 10
	nameLength  = 128
	uuidLength  = 129
	nameOffset  = 48
	uuidOffset  = nameOffset + nameLength
	kindOffset  = 24
	kindLength  = 16
	major       = 4
	ioctlType   = 0xfd
	readWrite   = 3 << 30
	sizeShift   = 16
	typeShift   = 8
	sizeAt      = 12
	startAt     = 16
	countAt     = 20
	openCountAt = 24
	flagsAt     = 28
	numberAt    = 40

	flagReadOnly    = 1 << 0
	flagStatusTable = 1 << 4
	flagBufferFull  = 1 << 8

	commandListDevices = 2
	commandCreate      = 3
	commandRemove      = 4
	commandSuspend     = 6
	commandStatus      = 7
	commandTableLoad   = 9
	commandTableStatus = 12
)

// Target is the only target of a device.
type Target struct {
	// Sectors is the size in sectors of 512 bytes.
	Sectors uint64
	// Kind is the target's type, e.g. "verity".
	Kind string
	// Parameters are those of the kernel's documentation of the target.
	Parameters string
}

// Device is a device of the kernel.
type Device struct {
	Name string
	// Number is the device number.
	Number uint64
	// OpenCount is how many users, such as mounted file systems, hold it open. It is zero in lists.
	OpenCount int32
	// Target is the device's only target; nil when it has no table or several targets.
	Target *Target
	// Status is the target's own status. For verity it is V (all blocks that were read are valid) or C (corrupted).
	Status string
}

// Node returns the device node that devtmpfs creates. The names in /dev/mapper would need udev rules.
func (d Device) Node() string {
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(d.Number))
}

// AwaitNode waits until devtmpfs has created the node, and returns its path.
func (d Device) AwaitNode(timeout time.Duration) (string, error) {
	deadline := time.Now().Add(timeout)
	for {
		_, err := os.Stat(d.Node())
		if err == nil || time.Now().After(deadline) {
			return d.Node(), err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// MajorMinor returns the device's number as in mountinfo.
func (d Device) MajorMinor() string {
	return fmt.Sprintf("%d:%d", unix.Major(d.Number), unix.Minor(d.Number))
}

// Mapper is an open device mapper.
type Mapper struct {
	control *os.File
}

// Open opens the device mapper. The kernel checks CAP_SYS_ADMIN at each call, so the node is opened only for reading.
func Open(control string) (*Mapper, error) {
	file, err := os.Open(control)
	if err != nil {
		return nil, err
	}
	return &Mapper{file}, nil
}

// Close closes the device mapper. The devices stay.
func (m *Mapper) Close() error {
	return m.control.Close()
}

// CreateReadOnly creates a read-only device with one target and activates it. It removes a device that could not be
// activated. The error is EEXIST or EBUSY when the name is taken.
func (m *Mapper) CreateReadOnly(name, uuid string, target Target) (Device, error) {
	request, err := newRequest(name, uuid, flagReadOnly, nil)
	if err != nil {
		return Device{}, err
	}
	if err := m.call(commandCreate, request); err != nil {
		return Device{}, fmt.Errorf("create the device: %w", err)
	}
	device, err := m.activate(name, target)
	if err != nil {
		_ = m.Remove(name)
	}
	return device, err
}

func (m *Mapper) activate(name string, target Target) (Device, error) {
	request, err := newRequest(name, "", flagReadOnly, &target)
	if err != nil {
		return Device{}, err
	}
	if err := m.call(commandTableLoad, request); err != nil {
		return Device{}, fmt.Errorf("load its table: %w", err)
	}
	// Without the suspend flag the call resumes the device, which activates the table.
	if request, err = newRequest(name, "", 0, nil); err != nil {
		return Device{}, err
	}
	if err := m.call(commandSuspend, request); err != nil {
		return Device{}, fmt.Errorf("activate it: %w", err)
	}
	return Device{Name: name, Number: binary.NativeEndian.Uint64(request[numberAt:]), Target: &target}, nil
}

// Remove removes a device. The error is EBUSY while it is in use, and ENXIO when it does not exist.
func (m *Mapper) Remove(name string) error {
	request, err := newRequest(name, "", 0, nil)
	if err != nil {
		return err
	}
	return m.call(commandRemove, request)
}

// Find returns a device with its open count and table. The error is ENXIO when it does not exist.
func (m *Mapper) Find(name string) (Device, error) {
	request, err := newRequest(name, "", 0, nil)
	if err != nil {
		return Device{}, err
	}
	if err := m.call(commandStatus, request); err != nil {
		return Device{}, err
	}
	device := Device{
		Name: name, Number: binary.NativeEndian.Uint64(request[numberAt:]),
		OpenCount: int32(binary.NativeEndian.Uint32(request[openCountAt:])),
	}
	if device.Target, err = m.target(name, flagStatusTable); err != nil {
		return Device{}, err
	}
	status, err := m.target(name, 0)
	if status != nil {
		device.Status = status.Parameters
	}
	return device, err
}

// List returns all devices with their tables. It omits a device that disappears meanwhile.
func (m *Mapper) List() ([]Device, error) {
	answer, err := m.ask(commandListDevices, "", 0)
	if err != nil {
		return nil, err
	}
	var devices []Device
	for _, listed := range parseNameList(answer) {
		device, err := m.Find(listed.Name)
		if errors.Is(err, unix.ENXIO) {
			continue
		}
		if err != nil {
			return nil, err
		}
		devices = append(devices, device)
	}
	return devices, nil
}

// target returns the table of a device or, without the flag for the table, its status.
func (m *Mapper) target(name string, flags uint32) (*Target, error) {
	answer, err := m.ask(commandTableStatus, name, flags)
	if err != nil {
		return nil, err
	}
	return parseTable(answer), nil
}

// ask makes a call whose response is longer than its request.
func (m *Mapper) ask(command uintptr, name string, flags uint32) ([]byte, error) {
	request, err := newRequest(name, "", flags, nil)
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, bufferSize)
	copy(buffer, request)
	binary.NativeEndian.PutUint32(buffer[sizeAt:], bufferSize)
	if err := m.call(command, buffer); err != nil {
		return nil, err
	}
	if binary.NativeEndian.Uint32(buffer[flagsAt:])&flagBufferFull != 0 {
		return nil, fmt.Errorf("device mapper call %d: the answer exceeds %d bytes", command, bufferSize)
	}
	return buffer, nil
}

func (m *Mapper) call(command uintptr, buffer []byte) error {
	number := readWrite | headerSize<<sizeShift | ioctlType<<typeShift | command
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, m.control.Fd(), number, uintptr(unsafe.Pointer(&buffer[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// newRequest returns the argument of a call. With a target it contains a table with that target.
func newRequest(name, uuid string, flags uint32, target *Target) ([]byte, error) {
	if len(name) >= nameLength || len(uuid) >= uuidLength {
		return nil, fmt.Errorf("device name %q or uuid %q is too long", name, uuid)
	}
	size := headerSize
	if target != nil {
		if len(target.Kind) >= kindLength {
			return nil, fmt.Errorf("target type %q is too long", target.Kind)
		}
		// Parameters end with a zero byte, and the kernel requires targets to be aligned to 8 bytes.
		size += targetSize + (len(target.Parameters)+1+7)/8*8
	}
	native := binary.NativeEndian
	b := make([]byte, size)
	native.PutUint32(b, major)
	native.PutUint32(b[sizeAt:], uint32(size))
	native.PutUint32(b[startAt:], headerSize)
	native.PutUint32(b[flagsAt:], flags)
	copy(b[nameOffset:], name)
	copy(b[uuidOffset:], uuid)
	if target != nil {
		native.PutUint32(b[countAt:], 1)
		spec := b[headerSize:]
		native.PutUint64(spec[8:], target.Sectors)
		native.PutUint32(spec[20:], uint32(size-headerSize))
		copy(spec[kindOffset:kindOffset+kindLength], target.Kind)
		copy(spec[targetSize:], target.Parameters)
	}
	return b, nil
}

// parseNameList parses a chain of struct dm_name_list: device number, offset of the next one, name.
func parseNameList(buffer []byte) []Device {
	native := binary.NativeEndian
	var devices []Device
	position := int(native.Uint32(buffer[startAt:]))
	for position+12 < len(buffer) {
		number := native.Uint64(buffer[position:])
		if number == 0 {
			break
		}
		devices = append(devices, Device{Name: terminated(buffer[position+12:]), Number: number})
		next := int(native.Uint32(buffer[position+8:]))
		if next == 0 {
			break
		}
		position += next
	}
	return devices
}

// parseTable parses the only struct dm_target_spec of a response. It returns nil when there is none, or more than one.
func parseTable(buffer []byte) *Target {
	native := binary.NativeEndian
	position := int(native.Uint32(buffer[startAt:]))
	if native.Uint32(buffer[countAt:]) != 1 || position+targetSize > len(buffer) {
		return nil
	}
	return &Target{
		Sectors:    native.Uint64(buffer[position+8:]),
		Kind:       terminated(buffer[position+kindOffset : position+kindOffset+kindLength]),
		Parameters: terminated(buffer[position+targetSize:]),
	}
}

func terminated(buffer []byte) string {
	if end := bytes.IndexByte(buffer, 0); end >= 0 {
		return string(buffer[:end])
	}
	return string(buffer)
}
