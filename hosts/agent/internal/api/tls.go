package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
)

// operatorName is the common name of client certificates that may use the agent.
const operatorName = "operator"

var errNotEnrolled = errors.New("the host has no certificate yet")

// tlsConfiguration takes certificate and CA anew at each handshake, so a renewed certificate needs no new listener.
func tlsConfiguration(host *identity.Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate, authority := host.Certificate()
			if certificate == nil {
				return nil, errNotEnrolled
			}
			clients := x509.NewCertPool()
			clients.AddCert(authority)
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				NextProtos:   []string{"h2"},
				Certificates: []tls.Certificate{*certificate},
				// Checks the chain, the validity by Time and the extended key usage clientAuth.
				ClientAuth:       tls.RequireAndVerifyClientCert,
				ClientCAs:        clients,
				Time:             func() time.Time { return host.Clock().Now() },
				VerifyConnection: authorize,
				// Every connection is checked in full.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// authorize admits operators only: hosts of the same CA have certificates, too.
func authorize(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return errors.New("no verified client certificate")
	}
	if name := state.PeerCertificates[0].Subject.CommonName; name != operatorName {
		return fmt.Errorf("client certificate of %q: only %q may use the agent", name, operatorName)
	}
	return nil
}
