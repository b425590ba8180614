// Package containerd is what the tests of the agent and those of our containerd share: the files and the configuration
// of a containerd that a test runs, and the requests that the agent makes of it.
package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// ClientGroup is the group of containerd's socket: that of the role groups on a host (sysusers.d).
const ClientGroup = 841

// Folder holds the files of a containerd that a test runs. Its path is short, since a socket's path has at most 108
// characters.
type Folder string

// At returns the path of a file in the folder.
func (f Folder) At(name string) string { return filepath.Join(string(f), name) }

// Socket serves CRI.
func (f Folder) Socket() string { return f.At("sock") }

// Ttrpc is the socket for shims.
func (f Folder) Ttrpc() string { return f.At("ttrpc") }

// Logs is the folder of the containers' logs.
func (f Folder) Logs() string { return f.At("logs") }

// Pause is the archive of the pause image.
func (f Folder) Pause() string { return f.At("pause.oci.tar") }

// Configuration is the configuration file.
func (f Folder) Configuration() string { return f.At("config.toml") }

// Options are in what the configurations of tests differ.
type Options struct {
	// RuntimeBinary is the only OCI runtime that containerd accepts. Default: that of a host.
	RuntimeBinary string
	// More is TOML that is added at the end.
	More string
}

// Configure makes the folder of logs and writes the configuration.
func (f Folder) Configure(t *testing.T, options Options) {
	t.Helper()
	runtime := ""
	if options.RuntimeBinary != "" {
		runtime = fmt.Sprintf("  runtime_binary = %q\n", options.RuntimeBinary)
	}
	configuration := fmt.Sprintf(`version = 4
root = %q
state = %q
disabled_plugins = ["io.containerd.nri.v1.nri"]
required_plugins = ["io.containerd.server.v1.grpc", "io.containerd.internal.v1.pause-image"]
[plugins."io.containerd.server.v1.grpc"]
  address = %q
  gid = %d
  cgroup_parent = "/palisade-test"
  log_root = %q
%s[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.internal.v1.pause-image"]
  archive = %q
  reference = "palisade.internal/pause:1"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "palisade.internal/pause:1"
%s`, f.At("root"), f.At("state"), f.Socket(), ClientGroup, f.Logs(), runtime, f.Ttrpc(), f.Pause(), options.More)
	if err := os.Mkdir(f.Logs(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Configuration(), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
}
