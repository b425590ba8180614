package template

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// held runs hold on one end of a pipe. It returns the other end and the result of hold.
func held(t *testing.T, ctx context.Context, state func(context.Context) *agentv1.TemplateWaiting) (net.Conn, <-chan *agentv1.CloneRelease) {
	t.Helper()
	guest, host := net.Pipe()
	t.Cleanup(func() { guest.Close(); host.Close() })
	released := make(chan *agentv1.CloneRelease, 1)
	go func() {
		release, _ := hold(ctx, guest, state)
		released <- release
	}()
	return host, released
}

func ready(context.Context) *agentv1.TemplateWaiting {
	return &agentv1.TemplateWaiting{Ready: true}
}

const seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func TestHoldSaysHowFarTheHostIsUntilItIsReleased(t *testing.T) {
	states := []*agentv1.TemplateWaiting{{ReadyMessage: "containerd starts"}, {Ready: true}}
	host, released := held(t, t.Context(), func(context.Context) *agentv1.TemplateWaiting {
		state := states[0]
		states = states[min(1, len(states)-1):]
		return state
	})
	lines := bufio.NewScanner(host)
	var said []string
	for len(said) < 2 && lines.Scan() {
		if lines.Text() != "" {
			said = append(said, lines.Text())
		}
	}
	var first, second struct {
		Ready        bool   `json:"ready"`
		ReadyMessage string `json:"readyMessage"`
	}
	if json.Unmarshal([]byte(said[0]), &first) != nil || json.Unmarshal([]byte(said[1]), &second) != nil {
		t.Fatalf("no messages: %q", said)
	}
	if first.Ready || first.ReadyMessage != "containerd starts" || !second.Ready {
		t.Errorf("said %q", said)
	}
	// The rest of an older message comes first.
	if _, err := host.Write([]byte(`Time":1}` + "\n" + `{"seed":"` + seed + `","time":"2031-02-03T04:05:06Z"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	release := <-released
	if got := release.GetTime().AsTime().Year(); got != 2031 || len(release.GetSeed()) != 32 {
		t.Errorf("released with %v", release)
	}
}

func TestHoldTakesNoReleaseThatWouldLeaveClonesAlike(t *testing.T) {
	for name, line := range map[string]string{
		"no seed":      `{"time":"2031-02-03T04:05:06Z"}`,
		"a short seed": `{"seed":"AAEC","time":"2031-02-03T04:05:06Z"}`,
		"no time":      `{"seed":"` + seed + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			host, released := held(t, ctx, ready)
			go func() { _, _ = bufio.NewReader(host).WriteTo(discard{}) }()
			if _, err := host.Write([]byte(line + "\n")); err != nil {
				t.Fatal(err)
			}
			select {
			case release := <-released:
				t.Errorf("released by %v", release)
			case <-time.After(200 * time.Millisecond):
			}
			cancel()
			<-released
		})
	}
}

type discard struct{}

func (discard) Write(content []byte) (int, error) { return len(content), nil }

func TestOnlyAMachineWithThePortIsHeld(t *testing.T) {
	folder := t.TempDir()
	pattern := filepath.Join(folder, "*", "name")
	if found, err := hasPort(pattern, "palisade.template"); found || err != nil {
		t.Errorf("no port: %v, %v", found, err)
	}
	for port, name := range map[string]string{"vport0p1": "palisade.enrollment", "vport0p30": "palisade.template"} {
		if err := os.Mkdir(filepath.Join(folder, port), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, port, "name"), []byte(name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := hasPort(pattern, "palisade.template"); !found || err != nil {
		t.Errorf("the port: %v, %v", found, err)
	}
	if found, _ := hasPort(pattern, "palisade.probe"); found {
		t.Error("found a port that is not there")
	}
}

func TestRenewIDsReplacesBothInPlace(t *testing.T) {
	folder := t.TempDir()
	machineID, bootID := filepath.Join(folder, "machine-id"), filepath.Join(folder, "boot-id")
	old := strings.Repeat("0", 32) + "\n"
	if err := os.WriteFile(machineID, []byte(old), 0o444); err != nil {
		t.Fatal(err)
	}
	// systemd shows the file under another name.
	shown := filepath.Join(folder, "shown")
	if err := os.Link(machineID, shown); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{old: true}
	for range 2 {
		if err := renewIDs(machineID, bootID); err != nil {
			t.Fatal(err)
		}
		for file, pattern := range map[string]string{
			shown:  `^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n$`,
			bootID: `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n$`,
		} {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(pattern).Match(content) || seen[string(content)] {
				t.Errorf("%s: %q", file, content)
			}
			seen[string(content)] = true
		}
	}
	if info, err := os.Stat(machineID); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("machine id: %v, %v", info.Mode(), err)
	}
}

func TestReseedIsTakenByTheKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the kernel takes entropy from user 0 only")
	}
	if err := reseed("/dev/urandom", []byte(seed)); err != nil {
		t.Error(err)
	}
	if err := reseed("/dev/null", []byte(seed)); err == nil {
		t.Error("a file that is no random number generator was reseeded")
	}
}

func TestCurrentTime(t *testing.T) {
	released := time.Date(2031, 2, 3, 4, 5, 6, 700_000_000, time.UTC)
	for name, test := range map[string]struct {
		clock string
		want  time.Time
	}{
		"the release was on its way for 8 s": {strconv.FormatInt(released.Unix()+8, 10) + "\n", time.Unix(released.Unix()+8, 0)},
		"the same second":                    {strconv.FormatInt(released.Unix(), 10) + "\n", released},
		"a clock that is slow":               {strconv.FormatInt(released.Unix()-100, 10) + "\n", released},
		"a clock that is an hour ahead":      {strconv.FormatInt(released.Unix()+3600, 10) + "\n", released},
		"no number":                          {"n/a\n", released},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "since_epoch")
			if err := os.WriteFile(file, []byte(test.clock), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := currentTime(released, file); !got.Equal(test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	if got := currentTime(released, filepath.Join(t.TempDir(), "absent")); !got.Equal(released) {
		t.Errorf("without a clock: got %s, want %s", got, released)
	}
}
