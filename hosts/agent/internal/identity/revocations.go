package identity

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/palisade-host/palisade/hosts/agent/internal/service"
)

const (
	revokedFolder = "revoked"
	// maximumRevoked bounds the list. A CA with so many revoked certificates is to be replaced.
	maximumRevoked = 1000
)

var (
	// ErrRevoked is the cause of a call's end when the certificate of its client was revoked.
	ErrRevoked = errors.New("the client certificate is revoked")
	// ErrTooManyRevoked refuses more revocations than the host keeps.
	ErrTooManyRevoked = fmt.Errorf("the host keeps at most %d revoked certificates", maximumRevoked)
)

// serialPattern is a serial number of at most 20 octets (RFC 5280, 4.1.2.2) as SerialNumber writes it.
var serialPattern = regexp.MustCompile(`^(0|[1-9a-f][0-9a-f]{0,39})$`)

// SerialNumber writes a serial number as it is named everywhere: hex digits in lower case without leading zeros.
func SerialNumber(number *big.Int) string {
	return number.Text(16)
}

// RevocationError names the entry of a list of serial numbers that is not one.
type RevocationError struct {
	Index int
	Value string
}

func (e *RevocationError) Error() string {
	return fmt.Sprintf("serial_numbers[%d]: %q is no serial number: at most 40 hex digits in lower case without leading zeros", e.Index, e.Value)
}

// Revocations are the client certificates that the host does not accept any more, by serial number. None is ever
// accepted again. It is safe for concurrent use.
//
// Each is a file that has the serial number as its name. The content is the time of the revocation, for people; a
// damaged one revokes all the same.
type Revocations struct {
	directory string
	calls     *calls

	mutex   sync.Mutex
	revoked map[string]struct{}
}

func openRevocations(directory string, calls *calls) (*Revocations, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	r := &Revocations{directory: directory, calls: calls, revoked: map[string]struct{}{}}
	for _, entry := range entries {
		if serialPattern.MatchString(entry.Name()) {
			r.revoked[entry.Name()] = struct{}{}
		} else if entry.Type().IsRegular() {
			// An interrupted write left it. A file that remains is ignored, too.
			_ = os.Remove(filepath.Join(directory, entry.Name()))
		}
	}
	return r, nil
}

// Add revokes certificates, and ends the calls that are in progress with them. Nothing is revoked when an entry is no
// serial number, or when there are too many. When the disk fails, those before the failure are revoked.
func (r *Revocations) Add(serialNumbers []string, now time.Time) error {
	for index, value := range serialNumbers {
		if !serialPattern.MatchString(value) {
			return &RevocationError{Index: index, Value: value}
		}
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	added := map[string]struct{}{}
	for _, number := range serialNumbers {
		if _, known := r.revoked[number]; !known {
			added[number] = struct{}{}
		}
	}
	if len(r.revoked)+len(added) > maximumRevoked {
		return ErrTooManyRevoked
	}
	for number := range added {
		content := []byte(now.UTC().Format(time.RFC3339) + "\n")
		if err := service.WriteFile(filepath.Join(r.directory, number), content, 0o600); err != nil {
			return err
		}
		r.revoked[number] = struct{}{}
		r.calls.end(revocationKey(number), ErrRevoked)
	}
	return nil
}

// List returns the serial numbers in order.
func (r *Revocations) List() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Sorted(maps.Keys(r.revoked))
}

func (r *Revocations) contains(serialNumber string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	_, revoked := r.revoked[serialNumber]
	return revoked
}
