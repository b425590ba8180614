package enrollment

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	"github.com/palisade-host/palisade/hosts/agent/internal/identity/testca"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

func runIdentity(t *testing.T, folder, verb, input string) (string, error) {
	t.Helper()
	var output bytes.Buffer
	err := RunIdentity(t.Context(), []string{"-data", folder, verb}, strings.NewReader(input), &output, slog.New(slog.DiscardHandler))
	return output.String(), err
}

func TestIdentityOfAnInstallation(t *testing.T) {
	folder, now := t.TempDir(), time.Now()
	authority := testca.New(t, now)
	line, err := runIdentity(t, folder, "request", "")
	if err != nil {
		t.Fatal(err)
	}
	var request agentv1.EnrollmentRequest
	if err := protojson.Unmarshal([]byte(line), &request); err != nil {
		t.Fatal(err)
	}
	response := func(signer *testca.Authority) string {
		text, err := protojson.Marshal(&agentv1.EnrollmentResponse{
			CertificateChain:     signer.Host(request.GetCertificateRequest(), now.Add(-time.Hour), now.Add(time.Hour)),
			CertificateAuthority: signer.PEM(),
			SignerTime:           timestamppb.New(now),
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for range 2 {
		// A repeated installation enrolls the same identity again.
		id, err := runIdentity(t, folder, "enroll", response(authority))
		if err != nil || strings.TrimSpace(id) != request.GetHostId() {
			t.Fatalf("enroll: %q, %v", id, err)
		}
	}
	host, err := identity.Open(folder, identity.NewClock(time.Now))
	if err != nil {
		t.Fatal(err)
	}
	if certificate, _ := host.Certificate(); certificate == nil || host.RequestReason() != "" {
		t.Fatalf("the host that starts needs %q", host.RequestReason())
	}
	again, err := runIdentity(t, folder, "request", "")
	var repeated struct{ HostId, Reason string }
	if err != nil || json.Unmarshal([]byte(again), &repeated) != nil || repeated.HostId != request.GetHostId() {
		t.Fatalf("another identity: %s, %v", again, err)
	}
	if _, err := runIdentity(t, folder, "enroll", response(testca.New(t, now))); err == nil {
		t.Fatal("another CA was taken")
	}
	if _, err := runIdentity(t, folder, "forget", ""); err == nil || !strings.Contains(err.Error(), "usage") {
		t.Fatalf("unknown verb: %v", err)
	}
}
