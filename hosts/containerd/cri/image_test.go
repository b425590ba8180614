package cri

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
)

const (
	grpcServer   = "io.containerd.server.v1.grpc"
	ttrpcServer  = "io.containerd.server.v1.ttrpc"
	nativeServer = "io.containerd.server.v1.native"
)

// load reads a configuration of the host image as containerd does. Those of the product and of the tests' profile lie
// in one folder on a host, so they do here.
func load(t *testing.T, name string) *config.Config {
	t.Helper()
	folder := t.TempDir()
	for _, source := range []string{"mkosi.extra/etc/containerd/config.toml", "mkosi.profiles/probe/mkosi.extra/etc/containerd/probe.toml"} {
		content, err := os.ReadFile(filepath.Join("../../image/mkosi", source))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(source)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded := &config.Config{Version: version.ConfigVersion}
	if err := config.LoadConfig(t.Context(), filepath.Join(folder, name), loaded); err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestConfigurationOfTheHostImage(t *testing.T) {
	for name, native := range map[string]any{
		"config.toml": nil,
		"probe.toml":  map[string]any{"address": "/run/containerd/native.sock"},
	} {
		loaded := load(t, name)
		decoded, err := loaded.Decode(t.Context(), grpcServer, &Config{})
		if err != nil {
			t.Fatal(err)
		}
		want := &Config{
			Address: "/run/containerd/containerd.sock", GID: 841, RuntimeBinary: "/usr/bin/crun",
			Policy: Policy{CgroupParent: "/palisade", LogRoot: hostLogs},
		}
		if !reflect.DeepEqual(decoded, want) {
			t.Errorf("%s: the server has %+v, expected %+v", name, decoded, want)
		}
		if err := want.Validate(); err != nil {
			t.Error(err)
		}
		ttrpc := map[string]any{"address": "/run/containerd/containerd.sock.ttrpc", "uid": int64(0), "gid": int64(0)}
		if !reflect.DeepEqual(loaded.Plugins[ttrpcServer], ttrpc) {
			t.Errorf("%s: the shims' server has %v", name, loaded.Plugins[ttrpcServer])
		}
		if !reflect.DeepEqual(loaded.Plugins[nativeServer], native) {
			t.Errorf("%s: the native server has %v, expected %v", name, loaded.Plugins[nativeServer], native)
		}
	}
}
