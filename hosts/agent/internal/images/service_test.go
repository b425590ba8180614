package images

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/palisade-host/palisade/hosts/agent/internal/images/registrytest"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

// TestService runs the whole role with its flags.
func TestService(t *testing.T) {
	f := newSealedFixture(t, "base", "app")
	directory, err := os.MkdirTemp("", "images")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	socket, trust := filepath.Join(directory, "s"), filepath.Join(directory, "trust")
	if err := os.MkdirAll(filepath.Join(trust, "seals"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(trust, "seals", "seal.pem"), []byte(f.key.PEM), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, []string{
			"-socket", socket, "-socket-group", "", "-data", f.options.DataDirectory, "-store", string(f.options.Store), "-trust", trust,
		}, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	client := &http.Client{Transport: service.UnixTransport(socket)}
	hosts := agentv1connect.NewHostServiceClient(client, "http://role")
	store := agentv1connect.NewImageStoreServiceClient(client, "http://role")
	policies := agentv1connect.NewImagePolicyServiceClient(client, "http://role")
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := hosts.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}

	ensure := func() (progress []*agentv1.ImageProgress, image *agentv1.SealedImage, err error) {
		stream, err := store.EnsureImage(ctx, connect.NewRequest(&agentv1.EnsureImageRequest{Reference: f.reference, ImageRegistries: f.server.Access()}))
		if err != nil {
			return nil, nil, err
		}
		defer stream.Close()
		for stream.Receive() {
			if one := stream.Msg().GetProgress(); one != nil {
				progress = append(progress, one)
			}
			image = stream.Msg().GetImage()
		}
		return progress, image, stream.Err()
	}
	progress, image, err := ensure()
	if err != nil || len(progress) == 0 || progress[0].GetMissingBytes() != image.GetTotalBytes() || image.GetManifestDigest() != f.image.Digest {
		t.Fatalf("%v, %v, %v", progress, image, err)
	}
	f.expectComplete(f.image)

	key := sealtest.NewKey(t)
	applied, err := policies.ApplyImagePolicy(ctx, connect.NewRequest(&agentv1.ApplyImagePolicyRequest{Policy: &agentv1.ImagePolicy{
		Name: "signed", Repositories: []string{registrytest.Repository}, Keys: []string{key.PEM},
	}}))
	if err != nil || applied.Msg.GetPolicy().GetGeneration() != 1 || len(applied.Msg.GetRefusedImages()) != 1 {
		t.Errorf("%v, %v", applied, err)
	}
	_, _, err = ensure()
	var failure *connect.Error
	if !errors.As(err, &failure) || failure.Code() != connect.CodePermissionDenied || len(failure.Details()) != 1 {
		t.Fatalf("%v", err)
	}
	detail, err := failure.Details()[0].Value()
	info, ok := detail.(*errdetails.ErrorInfo)
	if err != nil || !ok || info.GetReason() != string(SignatureMissing) || info.GetDomain() != ErrorDomain || info.GetMetadata()["image"] != f.reference {
		t.Errorf("%v, %v", detail, err)
	}
	if list, err := policies.ListImagePolicies(ctx, connect.NewRequest(&agentv1.ListImagePoliciesRequest{})); err != nil || len(list.Msg.GetPolicies()) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if got, err := policies.GetImagePolicy(ctx, connect.NewRequest(&agentv1.GetImagePolicyRequest{Name: "signed"})); err != nil || got.Msg.GetPolicy().GetKeys()[0] != key.PEM {
		t.Errorf("%v, %v", got, err)
	}
	for range 2 {
		if _, err := policies.DeleteImagePolicy(ctx, connect.NewRequest(&agentv1.DeleteImagePolicyRequest{Name: "signed"})); err != nil {
			t.Error(err)
		}
	}
	if _, err := policies.GetImagePolicy(ctx, connect.NewRequest(&agentv1.GetImagePolicyRequest{Name: "signed"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("%v", err)
	}

	f.server.Tell(func(writer http.ResponseWriter, request *http.Request) bool {
		writer.WriteHeader(http.StatusUnauthorized)
		return true
	})
	retained, err := store.RetainImages(ctx, connect.NewRequest(&agentv1.RetainImagesRequest{}))
	if err != nil || len(retained.Msg.GetRemovedImages()) != 1 || retained.Msg.GetRemovedBytes() <= image.GetTotalBytes() {
		t.Errorf("%v, %v", retained, err)
	}
	if _, _, err := ensure(); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), ": unauthorized: ") {
		t.Errorf("%v", err)
	}
}
