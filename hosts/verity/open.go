package verity

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/palisade-host/palisade/hosts/devicemapper"
)

// Source are the blocks of a verity device.
type Source struct {
	// Data and Hash are block devices, as paths or major:minor. They may be the same.
	Data, Hash string
	// HashOffset is where the header is on the hash device, in bytes.
	HashOffset int64
	Superblock Superblock
}

// Open creates a verity device. The kernel checks the signature (PKCS#7, DER, over the root hash in lower-case
// hexadecimal) when it loads the table. options are those of the verity target, such as "panic_on_corruption".
//
// Errors of the kernel are ENOKEY for a missing signature where one is required, EKEYREJECTED or EBADMSG for a wrong
// one, and EBUSY when the name is taken.
func Open(mapper *devicemapper.Mapper, name string, source Source, rootHash string, signature []byte, options ...string) (devicemapper.Device, error) {
	// The keyring that carries the signature belongs to one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	description := "palisade:" + name
	key, err := unix.AddKey("user", description, signature, unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return devicemapper.Device{}, fmt.Errorf("verity device %s: hand the signature to the kernel: %w", name, err)
	}
	defer func() {
		// The kernel no longer needs it. If this fails, a public signature stays in a keyring of this process.
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}()
	device, err := mapper.CreateReadOnly(name, source.Superblock.DeviceUUID(name), devicemapper.Target{
		Sectors:    source.Superblock.Sectors(),
		Kind:       "verity",
		Parameters: source.Superblock.Table(source.Data, source.Hash, source.HashOffset, rootHash, description, options...),
	})
	if err != nil {
		return devicemapper.Device{}, fmt.Errorf("verity device %s: %w", name, err)
	}
	return device, nil
}
