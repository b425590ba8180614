package seal

import (
	"encoding/base64"
	"errors"
	"strings"

	"sigs.k8s.io/json"
)

// Decode decodes JSON in the one way in which all parsers agree: names are case-sensitive, and no name occurs twice in
// an object. encoding/json itself ignores case and takes the last of two names.
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

// DecodeBase64 decodes the standard or the URL-safe alphabet, as DSSE allows, with padding and without line ends or
// other characters (RFC 4648, section 3). encoding/base64 itself ignores line ends.
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
