package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const dependencyFile = `kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/lib/reed_solomon/reed_solomon.ko.xz kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
`

const aliasFile = `# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias virtio:d00000002v* virtio_blk
alias pci:v00008086d00001533sv*sd*bc*sc*i* igb
alias acpi*:QEMU0002:* qemu_fw_cfg
alias fs-erofs erofs
alias broken
`

func TestParseModuleIndex(t *testing.T) {
	index := parseModuleIndex(dependencyFile, "", "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n")
	if got := index.files["dm_verity"]; got != "kernel/drivers/md/dm-verity.ko.xz" {
		t.Errorf("file of dm_verity: %q", got)
	}
	want := []string{"reed_solomon", "dm_bufio", "dm_mod"}
	if got := index.dependencies["dm_verity"]; !reflect.DeepEqual(got, want) {
		t.Errorf("dependencies of dm_verity: %v, want %v", got, want)
	}
	if !index.builtin["virtio_pci"] || index.builtin["dm_mod"] {
		t.Errorf("built in: %v", index.builtin)
	}
}

func TestModuleParameters(t *testing.T) {
	const line = "quiet dm_verity.require_signatures=1 dm-verity.prefetch_cluster=0 ipe.enforce=0 dm_verity.flag roothash=a.b\n"
	if got, want := moduleParameters(line, "dm_verity"), "require_signatures=1 prefetch_cluster=0 flag"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := moduleParameters(line, "erofs"); got != "" {
		t.Errorf("got %q for a module without parameters", got)
	}
}

func TestMissingModuleIsAnError(t *testing.T) {
	loader := moduleLoader{index: parseModuleIndex("", "", "kernel/fs/ext4/ext4.ko"), loaded: map[string]bool{}}
	if err := loader.load("ext4"); err != nil {
		t.Errorf("built-in module: %v", err)
	}
	if err := loader.load("dm_verity"); err == nil {
		t.Error("a missing module was no error")
	}
}

func TestDriversOfDevices(t *testing.T) {
	index := parseModuleIndex("", aliasFile, "")
	devices := []string{
		"virtio:d00000002v00001AF4", "virtio:d00000001v00001AF4", "virtio:d00000010v00001AF4", "virtio:d00000001v00001AF4",
		"pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", "acpi:QEMU0002:", "",
	}
	want := []string{"virtio_blk", "virtio_net", "igb", "qemu_fw_cfg"}
	if got := index.drivers(devices); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDeviceAliases(t *testing.T) {
	buses := t.TempDir()
	for device, alias := range map[string]string{
		"virtio/devices/virtio1": "virtio:d00000002v00001AF4\n", "virtio/devices/virtio0": "virtio:d00000001v00001AF4\n",
		"virtio/devices/virtio2": "virtio:d00000002v00001AF4\n", "platform/devices/serial": "\n",
	} {
		folder := filepath.Join(buses, device)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "modalias"), []byte(alias), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(buses, "pci/devices/without"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := deviceAliases(buses)
	want := []string{"virtio:d00000001v00001AF4", "virtio:d00000002v00001AF4"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}
