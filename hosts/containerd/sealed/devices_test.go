package sealed

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-host/palisade/hosts/devicemapper"
	"github.com/palisade-host/palisade/hosts/seal"
)

// withoutDeviceMapper returns the devices of a machine without a device mapper. What needs the kernel is tested on
// hosts.
func withoutDeviceMapper(t *testing.T) *devices {
	return &devices{control: filepath.Join(t.TempDir(), "control")}
}

// verityHeader returns a superblock for a number of data blocks of 4096 bytes.
func verityHeader(dataBlocks uint64) []byte {
	header := make([]byte, 512)
	copy(header, "verity\x00\x00")
	binary.LittleEndian.PutUint32(header[8:], 1)
	binary.LittleEndian.PutUint32(header[12:], 1)
	copy(header[32:], "sha256")
	binary.LittleEndian.PutUint32(header[64:], 4096)
	binary.LittleEndian.PutUint32(header[68:], 4096)
	binary.LittleEndian.PutUint64(header[72:], dataBlocks)
	return header
}

func TestOpenRefuses(t *testing.T) {
	data := make([]byte, 8192)
	for name, test := range map[string]struct {
		// blob and signature are not written when they are nil.
		blob, signature []byte
		says            string
	}{
		"no signature":                      {append(data, verityHeader(2)...), nil, "its signature"},
		"an empty signature":                {append(data, verityHeader(2)...), []byte{}, "expected 1 to 65536"},
		"too large a signature":             {append(data, verityHeader(2)...), make([]byte, 64<<10+1), "expected 1 to 65536"},
		"no blob":                           {nil, []byte("signature"), "no such file"},
		"a blob that ends before the tree":  {data[:4096], []byte("signature"), "verity header"},
		"no header":                         {append(data, make([]byte, 512)...), []byte("signature"), "no verity header"},
		"a header that counts its own tree": {append(data, verityHeader(3)...), []byte("signature"), "counts 12288 bytes of data before the tree at 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			l := layer{
				blob: filepath.Join(folder, "a.erofs"), signature: filepath.Join(folder, "a.p7s"),
				rootHash: strings.Repeat("a", 64), hashOffset: 8192,
			}
			if test.blob != nil {
				writeFile(t, l.blob, test.blob)
			}
			if test.signature != nil {
				writeFile(t, l.signature, test.signature)
			}
			// All of these fail before they need a device mapper, which does not exist.
			if _, err := newDevices().open(nil, seal.DevicePrefix+l.rootHash, l); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func TestSignedFor(t *testing.T) {
	rootHash := strings.Repeat("a", 64)
	line := func(rootHash, options string) string {
		return "1 7:0 7:0 4096 4096 2 3 sha256 " + rootHash + " - " + options
	}
	signed := line(rootHash, "2 root_hash_sig_key_desc palisade:x")
	for name, test := range map[string]struct {
		target *devicemapper.Target
		fine   bool
	}{
		"checked by the kernel":  {&devicemapper.Target{Kind: "verity", Parameters: signed}, true},
		"with more options":      {&devicemapper.Target{Kind: "verity", Parameters: line(rootHash, "3 panic_on_corruption root_hash_sig_key_desc palisade:x")}, true},
		"no signature":           {&devicemapper.Target{Kind: "verity", Parameters: line(rootHash, "0")}, false},
		"no options at all":      {&devicemapper.Target{Kind: "verity", Parameters: strings.TrimSuffix(line(rootHash, ""), " ")}, false},
		"another root hash":      {&devicemapper.Target{Kind: "verity", Parameters: line(strings.Repeat("b", 64), "2 root_hash_sig_key_desc palisade:x")}, false},
		"another kind of target": {&devicemapper.Target{Kind: "linear", Parameters: signed}, false},
		"an empty line":          {&devicemapper.Target{Kind: "verity"}, false},
		"no table":               {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := signedFor(devicemapper.Device{Name: seal.DevicePrefix + rootHash, Target: test.target}, rootHash)
			if (err == nil) != test.fine {
				t.Error(err)
			}
		})
	}
}

func TestUseWithoutADeviceMapper(t *testing.T) {
	mounted := false
	err := withoutDeviceMapper(t).use(layer{rootHash: strings.Repeat("a", 64)}, t.TempDir(), func(string) error {
		mounted = true
		return nil
	})
	if !errors.Is(err, os.ErrNotExist) || mounted {
		t.Errorf("%v, mounted: %v", err, mounted)
	}
}

func TestReleaseLeavesForeignDevices(t *testing.T) {
	d := withoutDeviceMapper(t)
	for _, node := range []string{"/dev/vda1", "tmpfs", "overlay", "", "/dev/dm-4294967295"} {
		if err := d.release(node); err != nil {
			t.Errorf("%q: %v", node, err)
		}
	}
}
