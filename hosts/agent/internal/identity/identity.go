// Package identity stores the host's identity: its id, its key, which never leaves the host, its certificate, and the
// CAs that it accepts: that of its first contact, or those that took its place.
package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// DomainSuffix is the end of the DNS name in the host's certificate, after the host id.
const DomainSuffix = ".host.palisade.internal"

const (
	hostIDFile      = "host-id"
	keyFile         = "key.pem"
	certificateFile = "certificate.pem"
	authorityFile   = "certificate-authority.pem"
)

var hostIDPattern = regexp.MustCompile(`^host-[0-9a-f]{16}$`)

// Identity is safe for concurrent use.
type Identity struct {
	directory string
	clock     *Clock
	hostID    string
	key       *ecdsa.PrivateKey
	calls     *calls
	revoked   *Revocations

	mutex       sync.RWMutex
	authorities []*x509.Certificate
	certificate *tls.Certificate
}

// Open reads the identity in a directory, or creates it there, with mode 0700 for the folder and 0600 for files. It
// ignores a certificate that does not belong to the key.
func Open(directory string, clock *Clock) (*Identity, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(directory, 0o700); err != nil {
		return nil, err
	}
	identity := &Identity{directory: directory, clock: clock, calls: newCalls()}
	if err := identity.openHostID(); err != nil {
		return nil, err
	}
	if err := identity.openKey(); err != nil {
		return nil, err
	}
	if err := identity.openAuthorities(); err != nil {
		return nil, err
	}
	identity.openCertificate()
	var err error
	if identity.revoked, err = openRevocations(identity.path(revokedFolder), identity.calls); err != nil {
		return nil, err
	}
	return identity, nil
}

func (i *Identity) path(name string) string {
	return filepath.Join(i.directory, name)
}

func (i *Identity) openHostID() error {
	content, err := os.ReadFile(i.path(hostIDFile))
	if errors.Is(err, os.ErrNotExist) {
		random := make([]byte, 8)
		rand.Read(random)
		i.hostID = "host-" + hex.EncodeToString(random)
		return service.WriteFile(i.path(hostIDFile), []byte(i.hostID+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	i.hostID = strings.TrimSpace(string(content))
	if !hostIDPattern.MatchString(i.hostID) {
		return fmt.Errorf("%s: %q is not a host id", i.path(hostIDFile), i.hostID)
	}
	return nil
}

func (i *Identity) openKey() error {
	content, err := os.ReadFile(i.path(keyFile))
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		i.key = key
		return service.WriteFile(i.path(keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return fmt.Errorf("%s: not a PEM file", i.path(keyFile))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", i.path(keyFile), err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%s: not an EC key", i.path(keyFile))
	}
	i.key = key
	return nil
}

func (i *Identity) openAuthorities() error {
	content, err := os.ReadFile(i.path(authorityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	i.authorities, err = parseAuthorities(string(content))
	if err != nil {
		return fmt.Errorf("%s: %w", i.path(authorityFile), err)
	}
	return nil
}

func (i *Identity) openCertificate() {
	content, err := os.ReadFile(i.path(certificateFile))
	if err != nil || i.authorities == nil {
		return
	}
	chain, err := parseChain(string(content))
	if err != nil || !i.key.PublicKey.Equal(chain[0].PublicKey) {
		return
	}
	i.certificate = i.tlsCertificate(chain)
}

// HostID is the same after each reboot.
func (i *Identity) HostID() string {
	return i.hostID
}

// DNSName returns the name in the host's certificate.
func (i *Identity) DNSName() string {
	return i.hostID + DomainSuffix
}

// Clock returns the clock for checking certificates.
func (i *Identity) Clock() *Clock {
	return i.clock
}

// Revocations returns the client certificates that the host does not accept.
func (i *Identity) Revocations() *Revocations {
	return i.revoked
}

// Certificate returns the certificate of the host and the CAs of its clients, or nil before the first contact. The
// caller must not change the list.
func (i *Identity) Certificate() (*tls.Certificate, []*x509.Certificate) {
	i.mutex.RLock()
	defer i.mutex.RUnlock()
	return i.certificate, i.authorities
}

// CertificateRequest returns a PKCS#10 request for the host's key and name, PEM.
func (i *Identity) CertificateRequest() (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: i.hostID},
		DNSNames: []string{i.DNSName()},
	}, i.key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// Reasons for requesting a certificate, as in EnrollmentRequest.reason.
const (
	ReasonInitial     = "initial"
	ReasonExpired     = "expired"
	ReasonNotYetValid = "not-yet-valid"
	ReasonRenewal     = "renewal"
)

// RequestReason returns the reason why a new certificate is needed, or nothing. Renewal is due in the last tenth of the
// certificate's validity.
func (i *Identity) RequestReason() string {
	certificate, _ := i.Certificate()
	if certificate == nil {
		return ReasonInitial
	}
	leaf, now := certificate.Leaf, i.clock.Now()
	switch {
	case now.Before(leaf.NotBefore):
		return ReasonNotYetValid
	case now.After(leaf.NotAfter):
		return ReasonExpired
	case leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		return ReasonRenewal
	}
	return ""
}

// Enroll checks a signer's response and stores what it revokes, the certificate, the signer's time and, at the first
// contact, the CA. It refuses a response with a CA that it does not accept.
func (i *Identity) Enroll(chainPEM, authorityPEM string, signer time.Time, revoked []string) (time.Time, error) {
	authority, err := parseAuthority(authorityPEM)
	if err != nil {
		return time.Time{}, fmt.Errorf("certificate_authority: %w", err)
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.authorities != nil && !slices.ContainsFunc(i.authorities, authority.Equal) {
		return time.Time{}, fmt.Errorf("certificate_authority: %q is not the CA of the first contact (%q), or one that took its place",
			authority.Subject.CommonName, i.authorities[0].Subject.CommonName)
	}
	chain, err := i.check(chainPEM, []*x509.Certificate{authority}, signer)
	if err != nil {
		return time.Time{}, fmt.Errorf("certificate_chain: %w", err)
	}
	// Before the certificate, with which clients are admitted.
	if err := i.revoked.Add(revoked, signer); err != nil {
		return time.Time{}, fmt.Errorf("revoked_serial_numbers: %w", err)
	}
	if i.authorities == nil {
		if err := i.storeAuthorities([]*x509.Certificate{authority}); err != nil {
			return time.Time{}, err
		}
	}
	if err := i.store(chain); err != nil {
		return time.Time{}, err
	}
	i.clock.Learn(signer)
	return chain[0].NotAfter, nil
}

// Install stores a certificate for the host's key and name that an accepted CA has signed and that is valid now.
func (i *Identity) Install(chainPEM string) (time.Time, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.authorities == nil {
		return time.Time{}, errors.New("the host has not met its CA yet")
	}
	chain, err := i.check(chainPEM, i.authorities, i.clock.Now())
	if err != nil {
		return time.Time{}, err
	}
	if err := i.store(chain); err != nil {
		return time.Time{}, err
	}
	return chain[0].NotAfter, nil
}

func (i *Identity) check(chainPEM string, authorities []*x509.Certificate, at time.Time) ([]*x509.Certificate, error) {
	chain, err := parseChain(chainPEM)
	if err != nil {
		return nil, err
	}
	if !i.key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, authority := range authorities {
		roots.AddCert(authority)
	}
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		DNSName:       i.DNSName(),
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return chain, err
}

func (i *Identity) store(chain []*x509.Certificate) error {
	var content bytes.Buffer
	for _, certificate := range chain {
		if err := pem.Encode(&content, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}); err != nil {
			return err
		}
	}
	if err := service.WriteFile(i.path(certificateFile), content.Bytes(), 0o600); err != nil {
		return err
	}
	i.certificate = i.tlsCertificate(chain)
	return nil
}

func (i *Identity) tlsCertificate(chain []*x509.Certificate) *tls.Certificate {
	certificate := &tls.Certificate{PrivateKey: i.key, Leaf: chain[0]}
	for _, link := range chain {
		certificate.Certificate = append(certificate.Certificate, link.Raw)
	}
	return certificate
}

func parseAuthority(content string) (*x509.Certificate, error) {
	authorities, err := parseAuthorities(content)
	if err != nil {
		return nil, err
	}
	if len(authorities) != 1 {
		return nil, fmt.Errorf("%d certificates, expected 1", len(authorities))
	}
	return authorities[0], nil
}

func parseAuthorities(content string) ([]*x509.Certificate, error) {
	authorities, err := parseChain(content)
	if err != nil {
		return nil, err
	}
	for _, authority := range authorities {
		if !authority.BasicConstraintsValid || !authority.IsCA {
			return nil, fmt.Errorf("%q is not a CA", authority.Subject.CommonName)
		}
	}
	return authorities, nil
}

func parseChain(content string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	rest := []byte(content)
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q, expected CERTIFICATE", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return chain, nil
}
