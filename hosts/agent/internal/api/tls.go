package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
)

// operatorName is the common name in client certificates of operators, who may use the agent.
const operatorName = "operator"

var errNotEnrolled = errors.New("the host has no certificate yet")

// tlsConfiguration reads certificate and CA at each handshake, so that a renewed certificate needs no new listener.
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
				// This mode verifies the chain, the validity at Time, and the extended key usage clientAuth.
				ClientAuth:       tls.RequireAndVerifyClientCert,
				ClientCAs:        clients,
				Time:             func() time.Time { return host.Clock().Now() },
				VerifyConnection: authorize,
				// Without session tickets every connection is verified in full.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// authorize admits operators only, because hosts have certificates of the same CA.
func authorize(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return errors.New("no verified client certificate")
	}
	if name := state.PeerCertificates[0].Subject.CommonName; name != operatorName {
		return fmt.Errorf("client certificate of %q: only %q may use the agent", name, operatorName)
	}
	return nil
}
