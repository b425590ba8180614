package groups

import (
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

func TestMessagesOfAnExit(t *testing.T) {
	key := "-----BEGIN EXAMPLE KEY-----\n" + strings.Repeat("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEH\n", 3) + "kR0=\n-----END EXAMPLE KEY-----\n"
	for name, test := range map[string]struct{ message, shown string }{
		"short":                   {"killed", "killed"},
		"cut at a character":      {"a" + strings.Repeat("é", 600), "a" + strings.Repeat("é", 511)},
		"cut at a long character": {"ab" + strings.Repeat("😀", 300), "ab" + strings.Repeat("😀", 255)},
		"of just that length":     {strings.Repeat("é", 512), strings.Repeat("é", 512)},
		"a secret":                {"env TOKEN=environment-canary is wrong", "env TOKEN=[secret] is wrong"},
		"a secret that is cut":    {strings.Repeat("x", 1016) + "environment-canary", strings.Repeat("x", 1016) + "[secret]"},
		"lines of a secret":       {strings.ReplaceAll(key, "\n", "\n  "), "[secret]\n  "},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			spec := testSpec("job")
			spec.RestartPolicy = agentv1.RestartPolicy_RESTART_POLICY_NEVER
			container := spec.GetContainers()[0]
			container.Environment = append(container.Environment, &agentv1.EnvironmentVariable{Name: "KEY", SecureValue: key, Secure: true})
			h.apply(spec)
			h.pass("job")
			h.runtime.SetMessage(container.GetName(), test.message)
			h.runtime.Exit(container.GetName(), 1, "Error")
			group := h.pass("job")
			if shown := only(group).GetMessage(); shown != test.shown {
				t.Errorf("shown: %q", shown)
			}
			if _, err := proto.Marshal(group); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExitOfCutsAtCharacters(t *testing.T) {
	for length := range 8 {
		message := exitOf(&runtimev1.ContainerStatus{Message: strings.Repeat("a", length) + strings.Repeat("😀", 300)}).Message
		if !utf8.ValidString(message) || len(message) > maximumMessageLength || len(message) < maximumMessageLength-3 {
			t.Errorf("%d: %d bytes, %q", length, len(message), message[len(message)-4:])
		}
	}
}

func TestExitOfIsUTF8(t *testing.T) {
	if message := exitOf(&runtimev1.ContainerStatus{Message: "a\xff\xfeb"}).Message; message != "a\ufffdb" {
		t.Errorf("%q", message)
	}
}

func TestSecretsOfTheSpecBefore(t *testing.T) {
	h := newHarness(t)
	h.apply(testSpec("web"))
	h.pass("web")
	changed := testSpec("web")
	changed.Containers[0].Environment[1].SecureValue = "another-canary"
	h.apply(changed)
	g, err := h.manager.find("web")
	if err != nil {
		t.Fatal(err)
	}
	if shown := g.clean("environment-canary, another-canary"); shown != "[secret], [secret]" {
		t.Errorf("shown: %q", shown)
	}
}
