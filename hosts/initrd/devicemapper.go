package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The interface of /dev/mapper/control (include/uapi/linux/dm-ioctl.h).
const (
	dmHeaderSize  = 312
	dmTargetSize  = 40
	dmDevCreate   = 3
	dmDevSuspend  = 6
	dmTableLoad   = 9
	dmReadOnly    = 1 << 0
	dmNameLength  = 128
	dmUUIDLength  = 129
	dmNameOffset  = 48
	dmUUIDOffset  = dmNameOffset + dmNameLength
	dmIoctlType   = 0xfd
	iocReadWrite  = 3 << 30
	iocSizeShift  = 16
	iocTypeShift  = 8
	dmMajor       = 4
	dmTargetCount = 20
	dmFlags       = 28
)

// dmRequest builds the argument of a device mapper call; with a table it carries one verity target.
func dmRequest(name, uuid string, flags uint32, sectors uint64, table string) ([]byte, error) {
	if len(name) >= dmNameLength || len(uuid) >= dmUUIDLength {
		return nil, fmt.Errorf("device name %q or uuid %q is too long", name, uuid)
	}
	size := dmHeaderSize
	if table != "" {
		// Parameters end with a zero byte; the kernel wants targets aligned to 8 bytes.
		size += dmTargetSize + (len(table)+1+7)/8*8
	}
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b[0:], dmMajor)
	binary.NativeEndian.PutUint32(b[12:], uint32(size))
	binary.NativeEndian.PutUint32(b[16:], dmHeaderSize)
	binary.NativeEndian.PutUint32(b[dmFlags:], flags)
	copy(b[dmNameOffset:], name)
	copy(b[dmUUIDOffset:], uuid)
	if table != "" {
		binary.NativeEndian.PutUint32(b[dmTargetCount:], 1)
		target := b[dmHeaderSize:]
		binary.NativeEndian.PutUint64(target[8:], sectors)
		binary.NativeEndian.PutUint32(target[20:], uint32(size-dmHeaderSize))
		copy(target[24:40], "verity")
		copy(target[dmTargetSize:], table)
	}
	return b, nil
}

func dmCall(control *os.File, command uintptr, request []byte) error {
	number := iocReadWrite | dmHeaderSize<<iocSizeShift | dmIoctlType<<iocTypeShift | command
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), number, uintptr(unsafe.Pointer(&request[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// createVerityDevice makes /dev/dm-0 from a verity table. The signature travels as a key of the calling thread, which
// the kernel asks for by its description while it loads the table.
func createVerityDevice(name, uuid string, sectors uint64, table string, signature []byte) error {
	if _, err := unix.AddKey("user", signatureKey, signature, unix.KEY_SPEC_THREAD_KEYRING); err != nil {
		return fmt.Errorf("hand the signature to the kernel: %w", err)
	}
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	for _, step := range []struct {
		what    string
		command uintptr
		uuid    string
		flags   uint32
		table   string
	}{
		{"create the device", dmDevCreate, uuid, dmReadOnly, ""},
		{"load its table; the kernel refuses a root hash without a valid signature", dmTableLoad, "", dmReadOnly, table},
		{"activate it", dmDevSuspend, "", 0, ""},
	} {
		request, err := dmRequest(name, step.uuid, step.flags, sectors, step.table)
		if err != nil {
			return err
		}
		if err := dmCall(control, step.command, request); err != nil {
			return fmt.Errorf("verity device %s: %s: %w", name, step.what, err)
		}
	}
	return nil
}
