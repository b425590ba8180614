package seal

import (
	"encoding/base64"
	"errors"
	"strings"

	"sigs.k8s.io/json"
)

// Decode reads JSON that others may read as well, in the one way in which all read it: names as they are written, none twice in an
// object. encoding/json takes names in either case and the last of two.
func Decode(content []byte, value any) error {
	var whole any
	repeated, err := json.UnmarshalStrict(content, &whole, json.DisallowDuplicateFields)
	if err != nil {
		return err
	}
	if len(repeated) > 0 {
		return errors.Join(repeated...)
	}
	return json.UnmarshalCaseSensitivePreserveInts(content, value)
}

// DecodeBase64 reads the standard or the URL-safe alphabet, as DSSE allows; padded, without line ends or anything else in between
// (RFC 4648, section 3). encoding/base64 passes over line ends.
func DecodeBase64(text string) ([]byte, error) {
	encoding := base64.StdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	content, err := encoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if encoding.EncodeToString(content) != text {
		return nil, errors.New("it is no canonical base64")
	}
	return content, nil
}
