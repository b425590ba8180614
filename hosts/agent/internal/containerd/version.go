package containerd

import (
	"context"
	"encoding/json"

	"github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// RuntimeVersion returns name and version of the OCI runtime of containerd's shim, such as "crun 1.21", or nothing when
// the shim does not report them. The shim asks the runtime for its features (OCI runtime-spec features.md), whose
// annotations contain the version.
func RuntimeVersion(ctx context.Context, connection grpc.ClientConnInterface) string {
	ctx = withNamespace(ctx)
	settings, err := anypb.New(&options.Options{BinaryName: "crun"})
	if err != nil {
		return ""
	}
	request, err := anypb.New(&types.RuntimeRequest{RuntimePath: "io.containerd.runc.v2", Options: settings})
	if err != nil {
		return ""
	}
	response, err := introspection.NewIntrospectionClient(connection).PluginInfo(ctx, &introspection.PluginInfoRequest{
		Type: "io.containerd.runtime.v2", ID: "task", Options: request,
	})
	if err != nil {
		return ""
	}
	var info types.RuntimeInfo
	// The value is decoded without its type, because containerd omits the host part of the type's URL.
	if proto.Unmarshal(response.GetExtra().GetValue(), &info) != nil {
		return ""
	}
	var features struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(info.GetFeatures().GetValue(), &features) != nil {
		return ""
	}
	if version := features.Annotations["run.oci.crun.version"]; version != "" {
		return "crun " + version
	}
	if version := features.Annotations["org.opencontainers.runc.version"]; version != "" {
		return "runc " + version
	}
	return ""
}
