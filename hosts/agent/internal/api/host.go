package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// roleTimeout bounds a call to another role.
const roleTimeout = 5 * time.Second

// hostService serves HostService. It asks the roles groups and integrity, each of which serves its part of HostService
// on its own socket.
type hostService struct {
	identity       *identity.Identity
	version        string
	facts          systemFacts
	groups         agentv1connect.HostServiceClient
	integrity      agentv1connect.HostServiceClient
	powerDirectory string
}

// systemFacts are facts that do not change while the host runs.
type systemFacts struct {
	kernel   string
	os       string
	bootID   string
	bootTime time.Time
}

func readSystemFacts() systemFacts {
	facts := systemFacts{os: osVersion()}
	var name syscall.Utsname
	if err := syscall.Uname(&name); err == nil {
		for _, character := range name.Release {
			if character == 0 {
				break
			}
			facts.kernel += string(rune(character))
		}
	}
	// A clone has the boot id of its template in the kernel, and its own in the first file.
	for _, file := range []string{"/run/palisade/boot-id", "/proc/sys/kernel/random/boot_id"} {
		if content, err := os.ReadFile(file); err == nil {
			facts.bootID = strings.TrimSpace(string(content))
			break
		}
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err == nil {
		facts.bootTime = time.Now().Add(-time.Duration(info.Uptime) * time.Second).Truncate(time.Second)
	}
	return facts
}

// osVersion returns the version of the image or, without one, of the distribution (os-release(5)).
func osVersion() string {
	content, err := os.ReadFile("/etc/os-release")
	if err != nil {
		content, err = os.ReadFile("/usr/lib/os-release")
	}
	if err != nil {
		return ""
	}
	values := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	name := values["PRETTY_NAME"]
	if image := strings.TrimSpace(values["IMAGE_ID"] + " " + values["IMAGE_VERSION"]); image != "" {
		name += " (" + image + ")"
	}
	return name
}

// GetHost answers even when other roles are down, and names them in ready_message. A host that is ready names there the
// records that it has set aside.
func (s *hostService) GetHost(ctx context.Context, _ *connect.Request[agentv1.GetHostRequest]) (*connect.Response[agentv1.GetHostResponse], error) {
	response := &agentv1.GetHostResponse{
		HostId:        s.identity.HostID(),
		AgentVersion:  s.version,
		KernelVersion: s.facts.kernel,
		OsVersion:     s.facts.os,
		Time:          timestamppb.New(s.identity.Clock().Now()),
		BootTime:      timestamppb.New(s.facts.bootTime),
		BootId:        s.facts.bootID,

		RevokedSerialNumbers:  s.identity.Revocations().List(),
		AuthorityFingerprints: s.identity.Authorities(),
	}
	if certificate, _ := s.identity.Certificate(); certificate != nil {
		response.CertificateNotAfter = timestamppb.New(certificate.Leaf.NotAfter)
	}

	ctx, cancel := context.WithTimeout(ctx, roleTimeout)
	defer cancel()
	var waiting, notes []string
	if groups, err := s.groups.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err != nil {
		waiting = append(waiting, "role groups does not answer: "+message(err))
	} else {
		response.ContainerdVersion = groups.Msg.GetContainerdVersion()
		response.RuntimeVersion = groups.Msg.GetRuntimeVersion()
		response.Cpus = groups.Msg.GetCpus()
		response.MemoryBytes = groups.Msg.GetMemoryBytes()
		if text := "role groups: " + groups.Msg.GetReadyMessage(); !groups.Msg.GetReady() {
			waiting = append(waiting, text)
		} else if groups.Msg.GetReadyMessage() != "" {
			notes = append(notes, text)
		}
	}
	if _, err := s.integrity.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{})); err != nil {
		waiting = append(waiting, "role integrity does not answer: "+message(err))
	}
	response.Ready = len(waiting) == 0
	response.ReadyMessage = strings.Join(append(waiting, notes...), "; ")
	return connect.NewResponse(response), nil
}

func message(err error) string {
	var connectError *connect.Error
	if errors.As(err, &connectError) {
		return connectError.Message()
	}
	return err.Error()
}

// GetIntegrity is answered by the role integrity.
func (s *hostService) GetIntegrity(ctx context.Context, request *connect.Request[agentv1.GetIntegrityRequest]) (*connect.Response[agentv1.GetIntegrityResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, roleTimeout)
	defer cancel()
	response, err := s.integrity.GetIntegrity(ctx, connect.NewRequest(request.Msg))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(response.Msg), nil
}

// CreateCertificateRequest lets the operator renew the certificate without the enrollment channel.
func (s *hostService) CreateCertificateRequest(context.Context, *connect.Request[agentv1.CreateCertificateRequestRequest]) (*connect.Response[agentv1.CreateCertificateRequestResponse], error) {
	request, err := s.identity.CertificateRequest()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.CreateCertificateRequestResponse{CertificateRequest: request}), nil
}

// InstallCertificate takes effect with the next connection.
func (s *hostService) InstallCertificate(_ context.Context, request *connect.Request[agentv1.InstallCertificateRequest]) (*connect.Response[agentv1.InstallCertificateResponse], error) {
	notAfter, err := s.identity.Install(request.Msg.GetCertificateChain())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("certificate_chain: "+err.Error()))
	}
	return connect.NewResponse(&agentv1.InstallCertificateResponse{NotAfter: timestamppb.New(notAfter)}), nil
}

// RevokeClientCertificates refuses the caller's own certificate: an operator who has no other one would be locked out.
func (s *hostService) RevokeClientCertificates(ctx context.Context, request *connect.Request[agentv1.RevokeClientCertificatesRequest]) (*connect.Response[agentv1.RevokeClientCertificatesResponse], error) {
	numbers, revocations := request.Msg.GetSerialNumbers(), s.identity.Revocations()
	own := identity.SerialNumber(callerChains(ctx)[0][0].SerialNumber)
	if index := slices.Index(numbers, own); index >= 0 {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("serial_numbers[%d]: this call is made with %s itself; revoke it with another operator's certificate", index, own))
	}
	var problem *identity.RevocationError
	switch err := revocations.Add(numbers, s.identity.Clock().Now()); {
	case errors.As(err, &problem):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, identity.ErrTooManyRevoked):
		return nil, connect.NewError(connect.CodeResourceExhausted, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.RevokeClientCertificatesResponse{RevokedSerialNumbers: revocations.List()}), nil
}

// SetCertificateAuthorities is how a CA takes the place of another one, with both accepted for a while.
func (s *hostService) SetCertificateAuthorities(ctx context.Context, request *connect.Request[agentv1.SetCertificateAuthoritiesRequest]) (*connect.Response[agentv1.SetCertificateAuthoritiesResponse], error) {
	var problem *identity.AuthoritiesError
	switch err := s.identity.SetAuthorities(request.Msg.GetCertificateAuthorities(), identity.Roots(callerChains(ctx))); {
	case errors.As(err, &problem):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, identity.ErrLockout):
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	return connect.NewResponse(&agentv1.SetCertificateAuthoritiesResponse{AuthorityFingerprints: s.identity.Authorities()}), nil
}

// PowerOff writes a request for the service manager, because this role has no right to stop anything. A path unit
// watches the power directory and starts poweroff.target or reboot.target.
func (s *hostService) PowerOff(_ context.Context, request *connect.Request[agentv1.PowerOffRequest]) (*connect.Response[agentv1.PowerOffResponse], error) {
	name := "poweroff"
	if request.Msg.GetReboot() {
		name = "reboot"
	}
	if err := os.WriteFile(filepath.Join(s.powerDirectory, name), nil, 0o600); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the host takes no power requests: "+err.Error()))
	}
	return connect.NewResponse(&agentv1.PowerOffResponse{}), nil
}
