package enrollment

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
)

const identityUsage = `usage: palisade-agent identity [-data FOLDER] request|enroll

request  prints an EnrollmentRequest of the identity in FOLDER, which is made when there is none
enroll   takes the EnrollmentResponse on standard input`

// RunIdentity is the first contact of a host that is being installed. The installer controls the machine over SSH, so
// that channel replaces the serial port. The messages are the same. The key is created on the machine and never leaves
// it.
func RunIdentity(_ context.Context, arguments []string, input io.Reader, output io.Writer, logger *slog.Logger) error {
	flags := flag.NewFlagSet("identity", flag.ContinueOnError)
	data := flags.String("data", "/var/lib/palisade/agent/api", "folder of the host's identity")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	host, err := identity.Open(*data, identity.NewClock(time.Now))
	if err != nil {
		return err
	}
	loop := &Loop{Identity: host, Logger: logger}
	switch flags.Arg(0) {
	case "request":
		reason := host.RequestReason()
		if reason == "" {
			// A repeated installation requests a certificate again, because the last response may have been lost.
			reason = identity.ReasonRenewal
		}
		line, err := loop.request(reason)
		if err != nil {
			return err
		}
		_, err = output.Write(line)
		return err
	case "enroll":
		line, err := io.ReadAll(io.LimitReader(input, maximumLine))
		if err != nil {
			return err
		}
		if !loop.handleResponse(line) {
			return errors.New("the signer's answer gave no certificate")
		}
		_, err = fmt.Fprintln(output, host.HostID())
		return err
	}
	return errors.New(identityUsage)
}
