package integrity

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// systemKeyrings hold the certificates that verify signatures.
var systemKeyrings = []string{".builtin_trusted_keys", ".secondary_trusted_keys", ".platform", ".machine", ".ima", ".blacklist"}

// key is a line of /proc/keys.
type key struct {
	serial      uint32
	kind        string
	description string
}

// parseKeys parses /proc/keys (proc_keys(5)): serial, flags, usage, timeout, permissions, uid, gid, type, "description:
// summary".
func parseKeys(content string) []key {
	var keys []key
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) < 9 {
			continue
		}
		serial, err := strconv.ParseUint(fields[0], 16, 32)
		if err != nil {
			continue
		}
		// A certificate's name may contain anything, but a protobuf message carries only UTF-8.
		description := strings.ToValidUTF8(strings.Join(fields[8:], " "), "\ufffd")
		// The summary follows the last colon, because descriptions contain colons themselves.
		if end := strings.LastIndex(description, ": "); end >= 0 {
			description = description[:end]
		} else {
			description = strings.TrimSuffix(description, ":")
		}
		keys = append(keys, key{serial: uint32(serial), kind: fields[7], description: description})
	}
	return keys
}

// keyringCertificates returns the certificates in the kernel's own keyrings that this user may see, as "keyring:
// description".
func keyringCertificates(content string) []string {
	keys := parseKeys(content)
	var certificates []string
	for _, ring := range keys {
		if !strings.HasPrefix(ring.kind, "keyring") || !slices.Contains(systemKeyrings, ring.description) {
			continue
		}
		for _, serial := range readKeyring(ring.serial) {
			for _, member := range keys {
				if member.serial == serial && strings.HasPrefix(member.kind, "asymmetri") {
					certificates = append(certificates, ring.description+": "+member.description)
				}
			}
		}
	}
	slices.Sort(certificates)
	return certificates
}

// readKeyring returns the serials that a keyring links to, or none when it may not be read.
func readKeyring(serial uint32) []uint32 {
	buffer := make([]byte, 64<<10)
	size, err := unix.KeyctlBuffer(unix.KEYCTL_READ, int(int32(serial)), buffer, 0)
	if err != nil || size > len(buffer) {
		return nil
	}
	var serials []uint32
	for position := 0; position+4 <= size; position += 4 {
		serials = append(serials, binary.NativeEndian.Uint32(buffer[position:]))
	}
	return serials
}
