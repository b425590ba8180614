package images

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Headers of registries' responses are parsed as their specifications say. provider/local/registry/headers.ts does
// the same.

// A token in the grammar of RFC 9110, which grants no access.
const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+" //nolint:gosec // G101: a regular expression

var (
	separators    = regexp.MustCompile(`^[\s,]*`)
	parameter     = regexp.MustCompile(`^(` + token + `)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))`)
	schemeOnly    = regexp.MustCompile(`^(` + token + `)(?:[ \t,]|$)`)
	schemeAndData = regexp.MustCompile(`^(` + token + `)[ \t]+[\w.~+/-]+=*[ \t]*(?:,|$)`)
	escaped       = regexp.MustCompile(`\\(.)`)
	link          = regexp.MustCompile(`<([^>]*)>((?:[^",]|"(?:[^"\\]|\\.)*")*)`)
	linkParameter = regexp.MustCompile(`;\s*([\w*-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+)))?`)
)

// challenge is one challenge of a WWW-Authenticate header (https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1).
type challenge struct {
	// scheme and the names of the parameters are in lower case.
	scheme     string
	parameters map[string]string
}

// challenges parses a header up to its first error.
func challenges(header string) (found []challenge) {
	for {
		header = header[len(separators.FindString(header)):]
		if match := parameter.FindStringSubmatchIndex(header); match != nil && len(found) > 0 {
			name, value := header[match[2]:match[3]], ""
			if match[4] >= 0 {
				value = escaped.ReplaceAllString(header[match[4]:match[5]], "$1")
			} else {
				value = header[match[6]:match[7]]
			}
			found[len(found)-1].parameters[strings.ToLower(name)] = value
			header = header[match[1]:]
			continue
		}
		match := schemeAndData.FindStringSubmatchIndex(header)
		if match == nil {
			if match = schemeOnly.FindStringSubmatchIndex(header); match == nil {
				return found
			}
		}
		found = append(found, challenge{strings.ToLower(header[match[2]:match[3]]), map[string]string{}})
		header = header[match[1]:]
	}
}

// oneChallenge keeps only the challenge that is answered, because oras reads only the first one. A challenge for a
// token is preferred to one for a password.
type oneChallenge struct {
	http.RoundTripper
}

func (t oneChallenge) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	var chosen string
	for _, offered := range challenges(strings.Join(response.Header.Values("WWW-Authenticate"), ", ")) {
		if offered.scheme == "bearer" && offered.parameters["realm"] != "" {
			chosen = "Bearer "
			for _, name := range []string{"realm", "service", "scope"} {
				if value := offered.parameters[name]; value != "" {
					chosen += fmt.Sprintf("%s=%s,", name, strconv.Quote(value))
				}
			}
			break
		}
		if offered.scheme == "basic" {
			chosen = "Basic"
		}
	}
	response.Header.Set("WWW-Authenticate", strings.TrimSuffix(chosen, ","))
	return response, nil
}

// nextLink returns the address of the next page (https://www.rfc-editor.org/rfc/rfc8288#section-3), or nothing on the
// last page.
func nextLink(headers []string) string {
	for _, match := range link.FindAllStringSubmatch(strings.Join(headers, ", "), -1) {
		for _, parameter := range linkParameter.FindAllStringSubmatch(match[2], -1) {
			if strings.EqualFold(parameter[1], "rel") && slices.Contains(strings.Fields(strings.ToLower(parameter[2]+parameter[3])), "next") {
				return match[1]
			}
		}
	}
	return ""
}
