package template

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reseed mixes the seed into the kernel's random number generator and makes all generators use it at once. Until then
// all clones of a template have the same state (random(4)).
func reseed(device string, seed []byte) error {
	file, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	// The argument is struct rand_pool_info: bits of entropy, number of bytes, bytes.
	pool := binary.NativeEndian.AppendUint32(nil, uint32(8*len(seed)))
	pool = binary.NativeEndian.AppendUint32(pool, uint32(len(seed)))
	pool = append(pool, seed...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool[0]))); errno != 0 {
		return fmt.Errorf("%s: add entropy: %w", device, errno)
	}
	if err := unix.IoctlSetInt(int(file.Fd()), unix.RNDRESEEDCRNG, 0); err != nil {
		return fmt.Errorf("%s: reseed: %w", device, err)
	}
	return nil
}

// maximumDelay is how long a release may take to arrive. After that time the hypervisor gives up.
const maximumDelay = time.Minute

// currentTime returns the later of the time in the release and that of the machine's real-time clock, because on a busy
// machine the release arrives seconds after it was written. The real-time clock runs while a template is stopped. Its
// file contains whole seconds since 1970. A clock that is missing or far off is ignored.
func currentTime(released time.Time, realTimeClock string) time.Time {
	content, err := os.ReadFile(realTimeClock)
	if err != nil {
		return released
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return released
	}
	if now := time.Unix(seconds, 0); now.After(released) && now.Sub(released) <= maximumDelay {
		return now
	}
	return released
}

// setClock sets the system's clock, which still has the time at which the template was stopped.
func setClock(now time.Time) error {
	value := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &value); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// renewIDs gives the clone a machine id of its own, in the file that systemd has mounted over /etc/machine-id, and a
// boot id, because the kernel's own boot id cannot be changed.
func renewIDs(machineID, bootID string) error {
	// The file is read-only for everybody, so its owner makes it writable for a moment.
	if err := os.Chmod(machineID, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(machineID, []byte(hex.EncodeToString(randomID())+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(machineID, 0o444); err != nil {
		return err
	}
	id := randomID()
	text := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err := os.WriteFile(bootID, []byte(text), 0o644); err != nil {
		return err
	}
	// The mode must not depend on the service manager's umask.
	return os.Chmod(bootID, 0o644)
}

// randomID returns a UUID of version 4 (RFC 9562), as machine-id(5) requires.
func randomID() []byte {
	id := make([]byte, 16)
	rand.Read(id)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
