package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

// maximumAuthorities bounds the CAs that a host accepts: two while one takes the other's place, and some in reserve.
const maximumAuthorities = 4

var (
	// ErrAuthorityNotAccepted is the cause of a call's end when the host does not accept the CA of the client any more.
	ErrAuthorityNotAccepted = errors.New("the host does not accept the CA of the client certificate")
	// ErrLockout refuses a list of CAs with which nobody, or not the caller, could reach the host.
	ErrLockout = errors.New("certificate_authorities")
)

// AuthoritiesError names the field of a list of CAs that is wrong.
type AuthoritiesError struct {
	Field  string
	Reason error
}

func (e *AuthoritiesError) Error() string {
	return e.Field + ": " + e.Reason.Error()
}

// Fingerprint returns the SHA-256 of a certificate, hex.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

// Authorities returns the fingerprints of the CAs that the host accepts.
func (i *Identity) Authorities() []string {
	_, authorities := i.Certificate()
	fingerprints := make([]string, len(authorities))
	for index, authority := range authorities {
		fingerprints[index] = Fingerprint(authority)
	}
	return fingerprints
}

// SetAuthorities replaces the CAs that the host accepts, of clients and of its own certificate. It ends the calls that
// are in progress with client certificates of the others.
//
// The list has to contain the CA that authenticates the caller, so that nobody locks themselves out, and the one of the
// host's present certificate, so that clients which trust the list reach the host. callers are the possible roots of
// the caller's certificate.
func (i *Identity) SetAuthorities(contents []string, callers []*x509.Certificate) error {
	if len(contents) == 0 || len(contents) > maximumAuthorities {
		return &AuthoritiesError{Field: "certificate_authorities", Reason: fmt.Errorf("1 to %d CAs are expected", maximumAuthorities)}
	}
	var authorities []*x509.Certificate
	for index, content := range contents {
		field := fmt.Sprintf("certificate_authorities[%d]", index)
		authority, err := parseAuthority(content)
		if err != nil {
			return &AuthoritiesError{Field: field, Reason: err}
		}
		if slices.ContainsFunc(authorities, authority.Equal) {
			return &AuthoritiesError{Field: field, Reason: fmt.Errorf("%q is in the list already", authority.Subject.CommonName)}
		}
		authorities = append(authorities, authority)
	}
	if !slices.ContainsFunc(callers, func(caller *x509.Certificate) bool { return slices.ContainsFunc(authorities, caller.Equal) }) {
		return fmt.Errorf("%w: the CA of this call is missing; drop it with a client certificate of the new CA", ErrLockout)
	}
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.certificate != nil && !issued(authorities, i.certificate) {
		return fmt.Errorf("%w: the CA of the host's own certificate is missing; install one of the new CA first", ErrLockout)
	}
	dropped := i.authorities
	if err := i.storeAuthorities(authorities); err != nil {
		return err
	}
	for _, authority := range dropped {
		if !slices.ContainsFunc(authorities, authority.Equal) {
			i.calls.end(authorityKey(authority), ErrAuthorityNotAccepted)
		}
	}
	return nil
}

// storeAuthorities is called with the mutex held.
func (i *Identity) storeAuthorities(authorities []*x509.Certificate) error {
	var content bytes.Buffer
	for _, authority := range authorities {
		if err := pem.Encode(&content, &pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}); err != nil {
			return err
		}
	}
	if err := service.WriteFile(i.path(authorityFile), content.Bytes(), 0o600); err != nil {
		return err
	}
	i.authorities = authorities
	return nil
}

// issued reports whether one of the authorities has issued a certificate, valid or not.
func issued(authorities []*x509.Certificate, certificate *tls.Certificate) bool {
	last, err := x509.ParseCertificate(certificate.Certificate[len(certificate.Certificate)-1])
	return err == nil && slices.ContainsFunc(authorities, func(authority *x509.Certificate) bool {
		return last.CheckSignatureFrom(authority) == nil
	})
}

// accepts reports whether the host accepts one of the roots.
func (i *Identity) accepts(roots []*x509.Certificate) bool {
	_, authorities := i.Certificate()
	return slices.ContainsFunc(roots, func(root *x509.Certificate) bool { return slices.ContainsFunc(authorities, root.Equal) })
}
