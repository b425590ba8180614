package datapath_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/palisade-host/palisade/bpf/datapath"
)

const completePolicy = `{"version":1,
	"identities":[{"id":16777216,"cidr":"192.0.2.0/24"}],
	"endpoints":[{"name":"default/web","identity":256,
		"ingress":{"enforce":true,"rules":[{"precedence":1,"action":"allow","identity":257,"protocol":"TCP","portStart":80,"portEnd":80}]},
		"egress":{"enforce":true,"rules":[{"precedence":3,"action":"deny","identity":0,"protocol":"ICMP","portStart":8,"portEnd":8,"code":0}]}}]}`

// resealed returns the policy after a change, with the hash that belongs to it.
func resealed(t *testing.T, change func(policy map[string]any)) []byte {
	t.Helper()
	var policy map[string]any
	if err := json.Unmarshal([]byte(completePolicy), &policy); err != nil {
		t.Fatal(err)
	}
	change(policy)
	canonical, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(canonical)
	policy["hash"] = hex.EncodeToString(sum[:])
	data, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// at returns the object at a path of names, in which 0 is the first item of a list.
func at(policy map[string]any, path string) map[string]any {
	found := any(policy)
	for _, step := range strings.Fields(path) {
		if step == "0" {
			found = found.([]any)[0]
		} else {
			found = found.(map[string]any)[step]
		}
	}
	return found.(map[string]any)
}

// A missing field must not be read as its zero value, which would open a direction or mean every peer.
func TestParsePolicyRefusesWhatIsNotThere(t *testing.T) {
	if _, err := datapath.ParsePolicy(resealed(t, func(map[string]any) {})); err != nil {
		t.Fatalf("the complete policy is refused: %v", err)
	}
	for path, names := range map[string]string{
		"":                            "version identities endpoints",
		"identities 0":                "id cidr",
		"endpoints 0":                 "name identity ingress egress",
		"endpoints 0 ingress":         "enforce rules",
		"endpoints 0 egress":          "enforce rules",
		"endpoints 0 ingress rules 0": "precedence action identity protocol portStart portEnd",
		"endpoints 0 egress rules 0":  "precedence action identity protocol portStart portEnd",
	} {
		for _, name := range strings.Fields(names) {
			for what, change := range map[string]func(map[string]any){
				"absent":        func(fields map[string]any) { delete(fields, name) },
				"null":          func(fields map[string]any) { fields[name] = nil },
				"in other case": func(fields map[string]any) { fields[strings.ToUpper(name)] = fields[name]; delete(fields, name) },
				"in two cases":  func(fields map[string]any) { fields[strings.ToUpper(name)] = fields[name] },
			} {
				t.Run(path+" "+name+" "+what, func(t *testing.T) {
					_, err := datapath.ParsePolicy(resealed(t, func(policy map[string]any) { change(at(policy, path)) }))
					if err == nil {
						t.Fatal("the policy is taken")
					}
					if strings.Contains(err.Error(), "is not the hash") {
						t.Fatalf("refused for its hash, not for the field: %v", err)
					}
				})
			}
		}
	}
}

func TestParsePolicyRefusesANullCode(t *testing.T) {
	data := resealed(t, func(policy map[string]any) { at(policy, "endpoints 0 egress rules 0")["code"] = nil })
	if _, err := datapath.ParsePolicy(data); err == nil || !strings.Contains(err.Error(), "rules[0].code") {
		t.Errorf("a code that is null, which means every code: %v", err)
	}
}

func TestSealWritesEmptyLists(t *testing.T) {
	sealed, err := datapath.Policy{Version: 1, Endpoints: []datapath.Subject{{Name: "default/web", Identity: 256}}}.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := datapath.ParsePolicy(sealed); err != nil {
		t.Errorf("what is sealed here is refused here: %v", err)
	}
}
