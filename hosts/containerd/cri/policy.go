package cri

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Policy is what the host lets clients ask for, beyond what no host allows. Each list is empty unless it is configured.
type Policy struct {
	// CgroupParent is the cgroup below which all containers are.
	CgroupParent string `toml:"cgroup_parent"`
	// LogRoot is the folder below which containers' logs are. Its own folder belongs to root; it may belong to the
	// client.
	LogRoot string `toml:"log_root"`
	// VolumeRoots are folders below which host paths of mounts are.
	VolumeRoots []string `toml:"volume_roots"`
	// Capabilities may be added to those that containers have by default, with or without CAP_ in front.
	Capabilities []string `toml:"capabilities"`
	// Sysctls are names of kernel parameters that a sandbox may set.
	Sysctls []string `toml:"sysctls"`
	// RuntimeHandlers may be named by clients beside the default one.
	RuntimeHandlers []string `toml:"runtime_handlers"`
}

// Validate tells whether the policy is complete.
func (p *Policy) Validate() error {
	if p.CgroupParent == "" {
		return errors.New("cgroup_parent has to be configured")
	}
	if p.LogRoot == "" {
		return errors.New("log_root has to be configured")
	}
	for _, folder := range append([]string{p.CgroupParent, p.LogRoot}, p.VolumeRoots...) {
		if !filepath.IsAbs(folder) || filepath.Clean(folder) != folder || folder == "/" {
			return fmt.Errorf("%q is not an absolute path in its shortest form, or is the root", folder)
		}
	}
	return nil
}
