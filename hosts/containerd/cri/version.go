package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"google.golang.org/protobuf/types/known/anypb"
)

// namespace is CRI's.
const namespace = "k8s.io"

// informant is containerd's manager of tasks, which asks the shim.
type informant interface {
	PluginInfo(ctx context.Context, request any) (any, error)
}

// runtimeVersion asks once, and again while there is no answer.
type runtimeVersion struct {
	runtime informant
	binary  string

	mutex sync.Mutex
	known string
}

func newRuntimeVersion(runtime any, binary string) (*runtimeVersion, error) {
	asked, ok := runtime.(informant)
	if !ok {
		return nil, fmt.Errorf("the runtime is of type %T, which tells nothing of itself", runtime)
	}
	return &runtimeVersion{runtime: asked, binary: binary}, nil
}

// get names the OCI runtime behind containerd's shim, e.g. "crun 1.21"; empty when it does not tell.
func (v *runtimeVersion) get(ctx context.Context) string {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.known == "" {
		version, err := v.ask(namespaces.WithNamespace(ctx, namespace))
		if err != nil {
			log.G(ctx).WithError(err).Warn("the OCI runtime does not tell its version")
		}
		v.known = version
	}
	return v.known
}

// ask reads the runtime's features (OCI runtime-spec, features.md), whose annotations hold the version.
func (v *runtimeVersion) ask(ctx context.Context) (string, error) {
	settings, err := anypb.New(&options.Options{BinaryName: v.binary})
	if err != nil {
		return "", err
	}
	answer, err := v.runtime.PluginInfo(ctx, &types.RuntimeRequest{RuntimePath: plugins.RuntimeRuncV2, Options: settings})
	if err != nil {
		return "", err
	}
	info, ok := answer.(*types.RuntimeInfo)
	if !ok {
		return "", fmt.Errorf("an answer of type %T", answer)
	}
	return versionOf(info.GetFeatures().GetValue())
}

func versionOf(content []byte) (string, error) {
	var features struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(content, &features); err != nil {
		return "", err
	}
	if version := features.Annotations["run.oci.crun.version"]; version != "" {
		return "crun " + version, nil
	}
	if version := features.Annotations["org.opencontainers.runc.version"]; version != "" {
		return "runc " + version, nil
	}
	return "", nil
}
