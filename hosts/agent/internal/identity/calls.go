package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
)

// calls are the calls of clients that are in progress, by what they depend on. It is safe for concurrent use.
type calls struct {
	mutex sync.Mutex
	byKey map[string]map[*context.CancelCauseFunc]struct{}
}

func newCalls() *calls {
	return &calls{byKey: map[string]map[*context.CancelCauseFunc]struct{}{}}
}

func revocationKey(serialNumber string) string {
	return "serial number " + serialNumber
}

func authorityKey(authority *x509.Certificate) string {
	return "authority " + Fingerprint(authority)
}

// begin returns the context of a call that depends on all keys, and a function that has to be called at its end.
func (c *calls) begin(ctx context.Context, keys []string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, key := range keys {
		if c.byKey[key] == nil {
			c.byKey[key] = map[*context.CancelCauseFunc]struct{}{}
		}
		c.byKey[key][&cancel] = struct{}{}
	}
	return ctx, func() {
		cancel(context.Canceled)
		c.mutex.Lock()
		defer c.mutex.Unlock()
		for _, key := range keys {
			delete(c.byKey[key], &cancel)
			if len(c.byKey[key]) == 0 {
				delete(c.byKey, key)
			}
		}
	}
}

// end ends the calls that depend on a key.
func (c *calls) end(key string, cause error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for cancel := range c.byKey[key] {
		(*cancel)(cause)
	}
}

// Call returns the context of a call by the holder of a client certificate. It ends with ErrRevoked or
// ErrAuthorityNotAccepted as its cause when the certificate is revoked or the host does not accept its CA any more. The
// function has to be called when the call ends. chains are the verified ones of the certificate.
func (i *Identity) Call(ctx context.Context, chains [][]*x509.Certificate) (context.Context, context.CancelFunc, error) {
	serialNumber := SerialNumber(chains[0][0].SerialNumber)
	roots := Roots(chains)
	keys := []string{revocationKey(serialNumber)}
	for _, root := range roots {
		keys = append(keys, authorityKey(root))
	}
	// What changes between the beginning and the checks ends the call.
	ctx, end := i.calls.begin(ctx, keys)
	if i.revoked.contains(serialNumber) {
		end()
		return nil, nil, fmt.Errorf("%w: serial number %s", ErrRevoked, serialNumber)
	}
	if !i.accepts(roots) {
		end()
		return nil, nil, fmt.Errorf("%w (%q)", ErrAuthorityNotAccepted, roots[0].Subject.CommonName)
	}
	return ctx, end, nil
}

// Roots returns the CAs at the ends of verified chains.
func Roots(chains [][]*x509.Certificate) []*x509.Certificate {
	roots := make([]*x509.Certificate, len(chains))
	for index, chain := range chains {
		roots[index] = chain[len(chain)-1]
	}
	return roots
}
