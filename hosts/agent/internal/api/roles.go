package api

import (
	"fmt"

	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// clientRole is what the holder of a client certificate may do. It is the common name in the certificate.
type clientRole string

const (
	// roleOperator may call everything.
	roleOperator clientRole = "operator"
	// roleReader may call what changes nothing on the host and returns no output of containers.
	roleReader clientRole = "reader"
)

// permits reports whether a client of this role may call what requires the other one.
func (r clientRole) permits(required clientRole) bool {
	return r == roleOperator || r == required
}

// parseRole reads the common name of a client certificate.
func parseRole(commonName string) (clientRole, error) {
	switch role := clientRole(commonName); role {
	case roleOperator, roleReader:
		return role, nil
	}
	return "", fmt.Errorf("client certificate of %q: only %q and %q may use the agent", commonName, roleOperator, roleReader)
}

// rolesByService has the role that each RPC requires. An RPC that is not here is not served. The responses of those for
// readers have no secret values: the roles that answer leave these out. GetLogs is not among them, because programs
// print what they like.
var rolesByService = map[string]map[string]clientRole{
	agentv1connect.HostServiceName: {
		"GetHost":                   roleReader,
		"GetIntegrity":              roleReader,
		"CreateCertificateRequest":  roleOperator,
		"InstallCertificate":        roleOperator,
		"RevokeClientCertificates":  roleOperator,
		"SetCertificateAuthorities": roleOperator,
		"PowerOff":                  roleOperator,
	},
	agentv1connect.GroupServiceName: {
		"ApplyGroup":       roleOperator,
		"GetGroup":         roleReader,
		"ListGroups":       roleReader,
		"DeleteGroup":      roleOperator,
		"WatchGroup":       roleReader,
		"GetLogs":          roleOperator,
		"SuspendReconcile": roleOperator,
	},
	agentv1connect.ImagePolicyServiceName: {
		"ApplyImagePolicy":  roleOperator,
		"GetImagePolicy":    roleReader,
		"ListImagePolicies": roleReader,
		"DeleteImagePolicy": roleOperator,
	},
	agentv1connect.NetworkServiceName: {
		"ApplyPolicy":  roleOperator,
		"GetPolicy":    roleReader,
		"DeletePolicy": roleOperator,
		"GetNetwork":   roleReader,
		"Repair":       roleOperator,
		"StreamFlows":  roleReader,
	},
}

// requiredRoles is the same by the path of a request.
var requiredRoles = func() map[string]clientRole {
	byPath := map[string]clientRole{}
	for service, methods := range rolesByService {
		for method, role := range methods {
			byPath["/"+service+"/"+method] = role
		}
	}
	return byPath
}()
