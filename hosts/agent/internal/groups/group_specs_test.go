package groups

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// specTable is hosts/api/testdata/group-specs.json. The test of the component and of the provider with it is
// provider/resources/group-specs.test.ts.
type specTable struct {
	Base  map[string]any
	Cases []struct {
		Name             string
		Group, Container map[string]any
		Containers       int
		Refused          []string
		Except           struct{ Agent *[]string }
		Unwritable       string
	}
}

// groupInputs are the provider's inputs, of the types that the agent's contract can hold.
type groupInputs struct {
	Name, RestartPolicy      string
	Ports                    []portInputs
	Containers               []containerInputs
	ImageRegistryCredentials []struct{ Server, Username, Password, CA string }
}

type containerInputs struct {
	Name, Image          string
	ImageChannel         *struct{ Repository, Channel string }
	Command              []string
	EnvironmentVariables []struct {
		Name        string
		Value       string
		SecureValue *string
	}
	Ports     []portInputs
	Resources *struct{ Requests, Limits amounts }
}

type portInputs struct {
	Port     uint32
	Protocol *string
}

type amounts struct{ CPU, MemoryInGB float64 }

var restartPolicies = map[string]agentv1.RestartPolicy{
	"Always":    agentv1.RestartPolicy_RESTART_POLICY_ALWAYS,
	"OnFailure": agentv1.RestartPolicy_RESTART_POLICY_ON_FAILURE,
	"Never":     agentv1.RestartPolicy_RESTART_POLICY_NEVER,
}

func TestGroupSpecTable(t *testing.T) {
	content, err := os.ReadFile("../../../api/testdata/group-specs.json")
	if err != nil {
		t.Fatal(err)
	}
	var table specTable
	if err := json.Unmarshal(content, &table); err != nil || len(table.Cases) == 0 {
		t.Fatalf("%d cases, %v", len(table.Cases), err)
	}
	for _, test := range table.Cases {
		t.Run(test.Name, func(t *testing.T) {
			inputs := laidOver(table.Base, test.Group)
			if containers := inputs["containers"].([]any); len(containers) > 0 {
				first := laidOver(containers[0].(map[string]any), test.Container)
				changed := append([]any{first}, containers[1:]...)
				if test.Containers > 0 {
					changed = nil
				}
				for index := range test.Containers {
					changed = append(changed, laidOver(first, map[string]any{"name": fmt.Sprintf("c%d", index)}))
				}
				inputs["containers"] = changed
			}
			spec, err := specOf(inputs)
			if (err != nil) != (test.Unwritable != "") {
				t.Fatalf("the contract cannot hold it: %q, %v", test.Unwritable, err)
			}
			if err != nil {
				return
			}
			normalize(spec)
			refused := test.Refused
			if test.Except.Agent != nil {
				refused = *test.Except.Agent
			}
			var expected, found []string
			for _, field := range refused {
				expected = append(expected, inContract(field))
			}
			err = validate(spec)
			if err != nil {
				found = violatedFields(t, err)
			}
			slices.Sort(expected)
			slices.Sort(found)
			if !slices.Equal(slices.Compact(found), expected) {
				t.Errorf("refused %q, expected %q: %v", found, expected, err)
			}
		})
	}
}

// laidOver is a copy of an object with changed properties; null leaves one out.
func laidOver(base, change map[string]any) map[string]any {
	result := maps.Clone(base)
	maps.Copy(result, change)
	maps.DeleteFunc(result, func(_ string, value any) bool { return value == nil })
	return result
}

// inContract is the path of an input as the agent's contract has it.
func inContract(field string) string {
	for _, name := range []struct{ input, contract string }{
		{"environmentVariables", "environment"},
		{"imageRegistryCredentials", "imageRegistries"},
		{"imageChannel.channel", "channel"},
		{"requests.cpu", "cpuRequest"},
		{"limits.cpu", "cpuLimit"},
		{"requests.memoryInGB", "memoryRequestBytes"},
		{"limits.memoryInGB", "memoryLimitBytes"},
	} {
		field = strings.Replace(field, name.input, name.contract, 1)
	}
	return field
}

// specOf writes inputs as toGroupSpec in provider/resources/group-spec.ts does. It fails where the contract has no form
// for them.
func specOf(inputs map[string]any) (*agentv1.GroupSpec, error) {
	content, err := json.Marshal(inputs)
	if err != nil {
		return nil, err
	}
	var group groupInputs
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&group); err != nil {
		return nil, err
	}
	spec := &agentv1.GroupSpec{Name: group.Name}
	if _, isGiven := inputs["restartPolicy"]; isGiven {
		policy, known := restartPolicies[group.RestartPolicy]
		if !known {
			return nil, fmt.Errorf("no restart policy %q", group.RestartPolicy)
		}
		spec.RestartPolicy = policy
	}
	if spec.Ports, err = portsOf(group.Ports); err != nil {
		return nil, err
	}
	for _, inputs := range group.Containers {
		container, err := containerOf(inputs)
		if err != nil {
			return nil, err
		}
		spec.Containers = append(spec.Containers, container)
	}
	for _, one := range group.ImageRegistryCredentials {
		spec.ImageRegistries = append(spec.ImageRegistries, &agentv1.ImageRegistry{
			Server: one.Server, Username: one.Username, Password: one.Password, Ca: one.CA,
		})
	}
	return spec, nil
}

func containerOf(inputs containerInputs) (*agentv1.Container, error) {
	container := &agentv1.Container{Name: inputs.Name, Image: inputs.Image, Command: inputs.Command}
	if follows := inputs.ImageChannel; follows != nil {
		_, digest, _ := strings.Cut(testImage, "@")
		container.Image, container.Channel = follows.Repository+"@"+digest, follows.Channel
	}
	for _, one := range inputs.EnvironmentVariables {
		variable := &agentv1.EnvironmentVariable{Name: one.Name, Value: one.Value}
		if one.SecureValue != nil {
			variable.Secure, variable.SecureValue = true, *one.SecureValue
		}
		container.Environment = append(container.Environment, variable)
	}
	var err error
	if container.Ports, err = portsOf(inputs.Ports); err != nil || inputs.Resources == nil {
		return container, err
	}
	requests, limits := inputs.Resources.Requests, inputs.Resources.Limits
	container.Resources = &agentv1.Resources{CpuRequest: requests.CPU, CpuLimit: limits.CPU}
	if container.Resources.MemoryRequestBytes, err = bytesOf(requests.MemoryInGB); err != nil {
		return nil, err
	}
	container.Resources.MemoryLimitBytes, err = bytesOf(limits.MemoryInGB)
	return container, err
}

func portsOf(inputs []portInputs) ([]*agentv1.Port, error) {
	var ports []*agentv1.Port
	for _, one := range inputs {
		port := &agentv1.Port{Port: one.Port}
		if one.Protocol != nil {
			protocol, known := agentv1.Protocol_value["PROTOCOL_"+*one.Protocol]
			if !known {
				return nil, fmt.Errorf("no protocol %q", *one.Protocol)
			}
			port.Protocol = agentv1.Protocol(protocol)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func bytesOf(gigabytes float64) (uint64, error) {
	bytes := math.Round(gigabytes * (1 << 30))
	if bytes < 0 || bytes >= 1<<64 {
		return 0, fmt.Errorf("%v GB are no number of bytes", gigabytes)
	}
	return uint64(bytes), nil
}
