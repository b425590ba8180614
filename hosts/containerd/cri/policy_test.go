package cri

import "testing"

func TestValidate(t *testing.T) {
	complete := Policy{CgroupParent: "/palisade", LogRoot: "/var/log/x", VolumeRoots: []string{"/var/lib/volumes"}}
	if err := complete.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Policy){
		"no cgroup":                 func(p *Policy) { p.CgroupParent = "" },
		"no folder of logs":         func(p *Policy) { p.LogRoot = "" },
		"a path that is not whole":  func(p *Policy) { p.LogRoot = "log" },
		"a path that is not short":  func(p *Policy) { p.LogRoot = "/var/log/" },
		"all of the host's files":   func(p *Policy) { p.VolumeRoots = []string{"/"} },
		"the cgroup of everything":  func(p *Policy) { p.CgroupParent = "/" },
		"a path with a way upwards": func(p *Policy) { p.VolumeRoots = []string{"/var/lib/../volumes"} },
	} {
		policy := complete
		change(&policy)
		if policy.Validate() == nil {
			t.Errorf("%s: passes", name)
		}
	}
}
