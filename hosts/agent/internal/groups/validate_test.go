package groups

import (
	"math"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/palisade-host/palisade/hosts/agent/internal/reference/referencetest"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

const testImage = "registry.test:5000/web/nginx@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// testSpec returns a valid spec, which tests change.
func testSpec(name string) *agentv1.GroupSpec {
	return &agentv1.GroupSpec{
		Name: name,
		Containers: []*agentv1.Container{{
			Name: "server", Image: testImage,
			Environment: []*agentv1.EnvironmentVariable{
				{Name: "MODE", Value: "production"},
				{Name: "TOKEN", Secure: true, SecureValue: "environment-canary"},
			},
			Ports:     []*agentv1.Port{{Port: 80}},
			Resources: &agentv1.Resources{CpuRequest: 0.5, MemoryRequestBytes: 64 << 20},
		}},
		ImageRegistries: []*agentv1.ImageRegistry{{
			Server: "registry.test:5000", Endpoint: "https://10.0.2.2:5000", Username: "user", Password: "password-canary",
		}},
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*agentv1.GroupSpec)
		fields []string
	}{
		"valid":          {func(*agentv1.GroupSpec) {}, nil},
		"no name":        {func(s *agentv1.GroupSpec) { s.Name = "" }, []string{"name"}},
		"path as name":   {func(s *agentv1.GroupSpec) { s.Name = "../x" }, []string{"name"}},
		"long name":      {func(s *agentv1.GroupSpec) { s.Name = strings.Repeat("a", 64) }, []string{"name"}},
		"no containers":  {func(s *agentv1.GroupSpec) { s.Containers = nil }, []string{"containers"}},
		"unknown policy": {func(s *agentv1.GroupSpec) { s.RestartPolicy = 9 }, []string{"restartPolicy"}},
		"container name": {func(s *agentv1.GroupSpec) { s.Containers[0].Name = "A" }, []string{"containers[0].name"}},
		"tag":            {func(s *agentv1.GroupSpec) { s.Containers[0].Image = "registry.test/web/nginx:1" }, []string{"containers[0].image"}},
		"no server": {func(s *agentv1.GroupSpec) {
			s.Containers[0].Image = strings.TrimPrefix(testImage, "registry.test:5000/web/")
		}, []string{"containers[0].image"}},
		"short digest":         {func(s *agentv1.GroupSpec) { s.Containers[0].Image = testImage[:len(testImage)-1] }, []string{"containers[0].image"}},
		"traversal in image":   {func(s *agentv1.GroupSpec) { s.Containers[0].Image = strings.Replace(testImage, "web", "..", 1) }, []string{"containers[0].image"}},
		"traversal further on": {func(s *agentv1.GroupSpec) { s.Containers[0].Image = strings.Replace(testImage, "web", "web/..", 1) }, []string{"containers[0].image"}},
		"a channel":            {func(s *agentv1.GroupSpec) { s.Containers[0].Channel = "stable" }, nil},
		"path as channel":      {func(s *agentv1.GroupSpec) { s.Containers[0].Channel = "a/b" }, []string{"containers[0].channel"}},
		"relative directory":   {func(s *agentv1.GroupSpec) { s.Containers[0].WorkingDirectory = "work" }, []string{"containers[0].workingDirectory"}},
		"NUL in command":       {func(s *agentv1.GroupSpec) { s.Containers[0].Command = []string{"a", "b\x00"} }, []string{"containers[0].command[1]"}},
		"variable without =":   {func(s *agentv1.GroupSpec) { s.Containers[0].Environment[0].Name = "A=B" }, []string{"containers[0].environment[0].name"}},
		"variable twice":       {func(s *agentv1.GroupSpec) { s.Containers[0].Environment[1].Name = "MODE" }, []string{"containers[0].environment[1].name"}},
		"secret in clear":      {func(s *agentv1.GroupSpec) { s.Containers[0].Environment[1].Value = "value-canary" }, []string{"containers[0].environment[1].value"}},
		"secret not secure":    {func(s *agentv1.GroupSpec) { s.Containers[0].Environment[1].Secure = false }, []string{"containers[0].environment[1].secureValue"}},
		"port 0":               {func(s *agentv1.GroupSpec) { s.Containers[0].Ports[0].Port = 0 }, []string{"containers[0].ports[0].port"}},
		"port 65536":           {func(s *agentv1.GroupSpec) { s.Ports = []*agentv1.Port{{Port: 65536}} }, []string{"ports[0].port"}},
		"unknown protocol":     {func(s *agentv1.GroupSpec) { s.Ports = []*agentv1.Port{{Port: 1, Protocol: 7}} }, []string{"ports[0].protocol"}},
		"published twice":      {func(s *agentv1.GroupSpec) { s.Ports = []*agentv1.Port{{Port: 80}, {Port: 80}} }, []string{"ports[1].port"}},
		"UDP beside TCP": {func(s *agentv1.GroupSpec) {
			s.Ports = []*agentv1.Port{{Port: 80}, {Port: 80, Protocol: agentv1.Protocol_PROTOCOL_UDP}}
		}, nil},
		"negative CPU":        {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.CpuRequest = -1 }, []string{"containers[0].resources.cpuRequest", "containers[0].resources.cpuLimit"}},
		"NaN CPU":             {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.CpuLimit = math.NaN() }, []string{"containers[0].resources.cpuLimit"}},
		"limit below request": {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.CpuLimit = 0.25 }, []string{"containers[0].resources.cpuLimit"}},
		"tiny memory":         {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.MemoryRequestBytes = 1 }, []string{"containers[0].resources.memoryRequestBytes", "containers[0].resources.memoryLimitBytes"}},
		"memory limit":        {func(s *agentv1.GroupSpec) { s.Containers[0].Resources.MemoryLimitBytes = 32 << 20 }, []string{"containers[0].resources.memoryLimitBytes"}},
		"registry scheme":     {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Server = "https://registry.test" }, []string{"imageRegistries[0].server"}},
		"plain endpoint":      {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Endpoint = "http://10.0.2.2" }, []string{"imageRegistries[0].endpoint"}},
		"endpoint with user":  {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Endpoint = "https://user:url-canary@10.0.2.2" }, []string{"imageRegistries[0].endpoint"}},
		"no user":             {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Username = "" }, []string{"imageRegistries[0].username"}},
		"CA":                  {func(s *agentv1.GroupSpec) { s.ImageRegistries[0].Ca = "no PEM" }, []string{"imageRegistries[0].ca"}},
		"two containers": {func(s *agentv1.GroupSpec) {
			s.Containers = append(s.Containers, proto.CloneOf(s.Containers[0]))
		}, []string{"containers[1].name", "containers[1].ports[0].port"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := testSpec("web")
			test.change(spec)
			normalize(spec)
			err := validate(spec)
			var fields []string
			if err != nil {
				if connect.CodeOf(err) != connect.CodeInvalidArgument {
					t.Fatalf("code %v", connect.CodeOf(err))
				}
				fields = violatedFields(t, err)
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("a secret is in the error: %v", err)
				}
			}
			if !slices.Equal(fields, test.fields) {
				t.Errorf("fields %q, expected %q: %v", fields, test.fields, err)
			}
		})
	}
}

func violatedFields(t *testing.T, err error) []string {
	t.Helper()
	var fields []string
	for _, detail := range err.(*connect.Error).Details() {
		value, err := detail.Value()
		if err != nil {
			t.Fatal(err)
		}
		for _, violation := range value.(*errdetails.BadRequest).GetFieldViolations() {
			fields = append(fields, violation.GetField())
		}
	}
	return fields
}

func TestNormalizeFillsDefaults(t *testing.T) {
	spec := testSpec("web")
	spec.Ports = []*agentv1.Port{{Port: 80}}
	normalize(spec)
	resources := spec.GetContainers()[0].GetResources()
	if resources.GetCpuLimit() != 0.5 || resources.GetMemoryLimitBytes() != 64<<20 {
		t.Errorf("limits %v", resources)
	}
	if spec.GetRestartPolicy() != agentv1.RestartPolicy_RESTART_POLICY_ALWAYS || spec.GetPorts()[0].GetProtocol() != agentv1.Protocol_PROTOCOL_TCP {
		t.Errorf("policy %v, ports %v", spec.GetRestartPolicy(), spec.GetPorts())
	}
	again := proto.CloneOf(spec)
	normalize(again)
	if !proto.Equal(spec, again) {
		t.Error("not idempotent")
	}
}

func TestCapacity(t *testing.T) {
	capacity := Capacity{CPUs: 2, MemoryBytes: 256 << 20}
	other := testSpec("other")
	tests := map[string]struct {
		change  func(*agentv1.Resources)
		message string
	}{
		"fits":          {func(*agentv1.Resources) {}, ""},
		"exactly":       {func(r *agentv1.Resources) { r.CpuRequest, r.MemoryRequestBytes = 1.5, 192<<20 }, ""},
		"CPU sum":       {func(r *agentv1.Resources) { r.CpuRequest = 1.6 }, "requests of 1.6 cores"},
		"memory sum":    {func(r *agentv1.Resources) { r.MemoryRequestBytes = 193 << 20 }, "memory requests"},
		"CPU limit":     {func(r *agentv1.Resources) { r.CpuLimit = 3 }, "containers[0].resources.cpuLimit"},
		"memory limit":  {func(r *agentv1.Resources) { r.MemoryLimitBytes = 257 << 20 }, "containers[0].resources.memoryLimitBytes"},
		"generous caps": {func(r *agentv1.Resources) { r.CpuLimit, r.MemoryLimitBytes = 2, 256<<20 }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := testSpec("web")
			test.change(spec.GetContainers()[0].GetResources())
			normalize(spec)
			err := capacity.admit(spec, []*agentv1.GroupSpec{other})
			if test.message == "" && err != nil || test.message != "" && (err == nil || !strings.Contains(err.Error(), test.message)) {
				t.Errorf("error %v, expected %q", err, test.message)
			}
		})
	}
}

func TestLinuxResources(t *testing.T) {
	linux := linuxResources(&agentv1.Resources{CpuRequest: 0.5, CpuLimit: 1.5, MemoryRequestBytes: 64 << 20, MemoryLimitBytes: 128 << 20})
	if linux.CpuShares != 512 || linux.CpuQuota != 150_000 || linux.CpuPeriod != 100_000 || linux.MemoryLimitInBytes != 128<<20 {
		t.Errorf("%v", linux)
	}
	if unset := linuxResources(nil); unset.CpuShares != 0 || unset.CpuQuota != 0 || unset.MemoryLimitInBytes != 0 {
		t.Errorf("%v", unset)
	}
}

func TestBackOff(t *testing.T) {
	want := []int{0, 10, 20, 40, 80, 160, 300, 300}
	for restarts, seconds := range want {
		if got := nextBackOff(uint32(restarts)).Seconds(); got != float64(seconds) {
			t.Errorf("restart %d waits %v s, expected %d", restarts, got, seconds)
		}
	}
	if nextBackOff(math.MaxUint32) != backOffMaximum {
		t.Error("overflow")
	}
}

func TestReferenceTable(t *testing.T) {
	table := referencetest.Load(t)
	for _, row := range table.References {
		spec := testSpec("web")
		spec.Containers[0].Image = row.Reference
		normalize(spec)
		err := validate(spec)
		if (err == nil) != (row.Refused == "") {
			t.Errorf("%q: %v", row.Reference, err)
		}
		if want := row.Server + "/" + row.Repository + "@" + row.Digest; err == nil && spec.Containers[0].Image != want {
			t.Errorf("%q is kept as %q", row.Reference, spec.Containers[0].Image)
		}
	}
	for taken, servers := range map[bool][]string{true: table.Servers.Accepted, false: table.Servers.Refused} {
		for _, server := range servers {
			spec := testSpec("web")
			spec.ImageRegistries[0].Server = server
			normalize(spec)
			if err := validate(spec); (err == nil) != taken {
				t.Errorf("server %q: %v", server, err)
			}
		}
	}
}

func TestRegistryOf(t *testing.T) {
	spec := &agentv1.GroupSpec{ImageRegistries: []*agentv1.ImageRegistry{{Server: "docker.io"}, {Server: "r.example:5000"}}}
	for image, want := range map[string]string{
		"index.docker.io/a/b@sha256:0": "docker.io", "R.Example:5000/a@sha256:0": "r.example:5000", "r.example/a@sha256:0": "",
	} {
		if got := registryOf(spec, image).GetServer(); got != want {
			t.Errorf("%s: %q, expected %q", image, got, want)
		}
	}
}
