package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/identity"
)

var errNotEnrolled = errors.New("the host has no certificate yet")

// tlsConfiguration reads certificate and CAs at each handshake, so that a renewed certificate needs no new listener.
func tlsConfiguration(host *identity.Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate, authorities := host.Certificate()
			if certificate == nil {
				return nil, errNotEnrolled
			}
			clients := x509.NewCertPool()
			for _, authority := range authorities {
				clients.AddCert(authority)
			}
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				NextProtos:   []string{"h2"},
				Certificates: []tls.Certificate{*certificate},
				// This mode verifies the chain, the validity at Time, and the extended key usage clientAuth.
				ClientAuth:       tls.RequireAndVerifyClientCert,
				ClientCAs:        clients,
				Time:             func() time.Time { return host.Clock().Now() },
				VerifyConnection: requireRole,
				// Without session tickets every connection is verified in full.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// requireRole admits certificates of a client role only, because hosts have certificates of the same CA.
func requireRole(state tls.ConnectionState) error {
	if len(state.VerifiedChains) == 0 {
		return errors.New("no verified client certificate")
	}
	_, err := parseRole(state.VerifiedChains[0][0].Subject.CommonName)
	return err
}
