// Package containerd reads what our build of containerd (hosts/containerd) tells beside CRI's own fields.
package containerd

import (
	"context"
	"encoding/json"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeVersionKey is RuntimeVersionKey of hosts/containerd/cri.
const runtimeVersionKey = "runtimeVersion"

// RuntimeVersion names the OCI runtime behind containerd's shim, e.g. "crun 1.21"; empty when containerd does not tell.
func RuntimeVersion(ctx context.Context, runtime runtimev1.RuntimeServiceClient) string {
	response, err := runtime.Status(ctx, &runtimev1.StatusRequest{Verbose: true})
	if err != nil {
		return ""
	}
	var version string
	if json.Unmarshal([]byte(response.GetInfo()[runtimeVersionKey]), &version) != nil {
		return ""
	}
	return version
}
