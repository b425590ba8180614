// Package template is the role that stops a boot just before the host gets an identity, so that the hypervisor can keep
// the machine as a template. It then turns each clone into a host of its own, with a new random seed, machine id and
// boot id, and the current time.
package template

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/palisade-host/palisade/hosts/agent/internal/enrollment"
	"github.com/palisade-host/palisade/hosts/agent/internal/service"
	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
	"github.com/palisade-host/palisade/hosts/api/palisade/agent/v1/agentv1connect"
)

const (
	// portTimeout bounds the wait until the device manager has named a port that the kernel has.
	portTimeout = 30 * time.Second
	// answerTimeout bounds the wait until the hypervisor has received the answer to its release.
	answerTimeout = 10 * time.Second
)

// Run returns when a clone was released. On a machine without the port it returns at once.
func Run(ctx context.Context, arguments []string, logger *slog.Logger) error {
	flags := flag.NewFlagSet("template", flag.ContinueOnError)
	path := flags.String("port", "/dev/virtio-ports/palisade.template", "virtio serial port on which the hypervisor answers")
	names := flags.String("port-names", "/sys/class/virtio-ports/*/name", "names of the kernel's virtio serial ports")
	groups := flags.String("groups-socket", "/run/palisade/groups.sock", "socket of the role groups")
	machineID := flags.String("machine-id", "/run/machine-id", "file that systemd shows as /etc/machine-id")
	bootID := flags.String("boot-id", "/run/palisade/boot-id", "file with the boot id of a clone")
	realTimeClock := flags.String("real-time-clock", "/sys/class/rtc/rtc0/since_epoch", "seconds since 1970, as the machine's clock says")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	wanted, err := hasPort(*names, "palisade.template")
	if err != nil || !wanted {
		return err
	}
	port, err := openPort(ctx, *path)
	if err != nil {
		return err
	}
	defer port.Close()

	role := agentv1connect.NewHostServiceClient(&http.Client{Transport: service.UnixTransport(*groups)}, "http://role")
	logger.Info("holding the boot before the host has an identity", "port", *path)
	release, err := hold(ctx, port, func(ctx context.Context) *agentv1.TemplateWaiting {
		host, err := role.GetHost(ctx, connect.NewRequest(&agentv1.GetHostRequest{}))
		if err != nil {
			return &agentv1.TemplateWaiting{ReadyMessage: "role groups does not answer: " + err.Error()}
		}
		return &agentv1.TemplateWaiting{Ready: host.Msg.GetReady(), ReadyMessage: host.Msg.GetReadyMessage()}
	})
	if err != nil {
		return err
	}
	if err := reseed("/dev/urandom", release.GetSeed()); err != nil {
		return err
	}
	if err := setClock(currentTime(release.GetTime().AsTime(), *realTimeClock)); err != nil {
		return err
	}
	if err := renewIDs(*machineID, *bootID); err != nil {
		return err
	}
	if err := send(port, &agentv1.TemplateWaiting{Ready: true, Released: true}, time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	logger.Info("released as a host of its own", "time", release.GetTime().AsTime().Format(time.RFC3339))
	return nil
}

// openPort opens the port after the device manager has named it.
func openPort(ctx context.Context, path string) (enrollment.Port, error) {
	deadline := time.Now().Add(portTimeout)
	for {
		port, err := enrollment.OpenDevice(path)()
		if err == nil || !os.IsNotExist(err) || time.Now().After(deadline) {
			return port, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
