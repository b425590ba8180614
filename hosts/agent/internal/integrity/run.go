// Package integrity is the role that reports the kernel's facts about the host's integrity. It changes nothing.
package integrity

import (
	"context"
	"flag"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

// Run parses the flags and serves until ctx ends.
func Run(ctx context.Context, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("integrity", flag.ContinueOnError)
	socket := flags.String("socket", "/run/palisade/integrity.sock", "unix socket the role api asks")
	group := flags.String("socket-group", "palisade-api", "group that may connect")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	listener, err := service.Listen(*socket, *group)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	reader := Reader{Root: "/"}
	mux.Handle(agentv1connect.NewHostServiceHandler(&hostService{reader: reader}))
	mux.Handle(agentv1connect.NewLayerDeviceServiceHandler(&layerService{reader}))
	logger.Info("serving", "socket", *socket)
	service.Notify("READY=1")
	return service.ServeUnix(ctx, listener, mux)
}

// hostService serves this role's part of HostService.
type hostService struct {
	agentv1connect.UnimplementedHostServiceHandler
	reader Reader
}

// layerService reports the devices of layers to the role groups.
type layerService struct {
	reader Reader
}

// ListLayerDevices asks the kernel at each call.
func (s *layerService) ListLayerDevices(context.Context, *connect.Request[agentv1.ListLayerDevicesRequest]) (*connect.Response[agentv1.ListLayerDevicesResponse], error) {
	_, layers := s.reader.readVerity()
	return connect.NewResponse(&agentv1.ListLayerDevicesResponse{Layers: layers}), nil
}

// GetHost reports that the role is running.
func (s *hostService) GetHost(context.Context, *connect.Request[agentv1.GetHostRequest]) (*connect.Response[agentv1.GetHostResponse], error) {
	return connect.NewResponse(&agentv1.GetHostResponse{Ready: true}), nil
}

// GetIntegrity reads every fact at each call.
func (s *hostService) GetIntegrity(context.Context, *connect.Request[agentv1.GetIntegrityRequest]) (*connect.Response[agentv1.GetIntegrityResponse], error) {
	return connect.NewResponse(s.reader.Read()), nil
}
