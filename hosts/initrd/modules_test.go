package main

import (
	"reflect"
	"testing"
)

const dependencyFile = `kernel/drivers/md/dm-mod.ko.xz:
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-verity.ko.xz: kernel/lib/reed_solomon/reed_solomon.ko.xz kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
`

func TestParseModuleIndex(t *testing.T) {
	index := parseModuleIndex(dependencyFile, "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n")
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
	loader := moduleLoader{index: parseModuleIndex("", "kernel/fs/ext4/ext4.ko"), loaded: map[string]bool{}}
	if err := loader.load("ext4"); err != nil {
		t.Errorf("built-in module: %v", err)
	}
	if err := loader.load("dm_verity"); err == nil {
		t.Error("a missing module was no error")
	}
}
