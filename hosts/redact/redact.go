// Package redact removes secret values from messages, because errors of containerd, registries and programs may quote
// them.
//
// A message is searched for each secret as it is, line by line, in base64 and in hexadecimal. The search is repeated
// after the message's own escapes (JSON, Go, URL, HTML) are undone, and after its white space is removed. All matches
// are found first and replaced once, so overlapping secrets and secrets that occur in the replacement itself do no
// harm.
//
// The provider does the same in TypeScript (redaction.ts). Both pass the cases in testdata/cases.json.
package redact

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	replacement = "[secret]"
	// shortest is the length from which secrets are replaced anywhere. Shorter ones occur in ordinary words, so they
	// are replaced only where they stand alone.
	shortest = 4
	// stretch is the length of those parts of a longer secret that are replaced wherever they occur, because a message
	// may quote a part of it.
	stretch = 16
	// shortestEncoded is the same as shortest for base64 and hexadecimal text, whose short pieces could be ordinary
	// words.
	shortestEncoded = 5
	// longestEncoded is how many characters of a secret are searched for in encoded forms. More would take too much
	// memory.
	longestEncoded = 8 << 10
	// escapeLevels bounds the levels of escapes. Each time a message is quoted in another one, a level is added.
	escapeLevels = 4
)

// base64Widths are the line lengths of openssl and base64.
var base64Widths = []int{64, 76}

// Redactor replaces a set of secrets. It is safe for concurrent use.
type Redactor struct {
	prepare      sync.Once
	texts        []string
	plain, dense needles
	beginnings   map[string]bool
}

// New returns a redactor of the texts. It ignores empty ones. The search is prepared at the first message.
func New(texts ...string) *Redactor {
	return &Redactor{texts: texts}
}

// Redact returns the message with "[secret]" in place of each text, in any of its forms.
func (r *Redactor) Redact(message string) string {
	r.prepare.Do(r.prepareNeedles)
	if len(r.plain) == 0 {
		return message
	}
	var spans []span
	look := func(layer *layer, needles needles) {
		needles.find(layer.text, func(start, end int) {
			spans = append(spans, span{layer.starts[start], layer.ends[end-1]})
		})
	}
	current := plainLayer(message)
	look(current.withoutSpace(), r.dense)
	for level := 0; ; level++ {
		look(current, r.plain)
		r.cutBeginnings(current.text, func(start, end int) {
			spans = append(spans, span{current.starts[start], current.ends[end-1]})
		})
		next := current
		if level < escapeLevels {
			next = current.unescaped()
		}
		if next == current {
			if level > 0 {
				look(current.withoutSpace(), r.dense)
			}
			break
		}
		current = next
	}
	return replaced(message, spans)
}

// reach is how far a match extends beyond its own characters.
type reach uint8

const (
	// reachLeft means that one more base64 character holds the end of what precedes the secret and the first bits of
	// the secret.
	reachLeft reach = 1 << iota
	// reachRight is the same at the end.
	reachRight
	// reachPadding means that base64 padding belongs to the match.
	reachPadding
	// reachInset means that the match includes a character on each side that stays.
	reachInset
	// reachAlone means that the match counts only where no letter or digit is next to it.
	reachAlone
)

// needles are the texts to search for, by their length in characters.
type needles map[int]map[string]reach

func (n needles) add(text string, reach reach) {
	characters := []rune(text)
	if len(characters) <= stretch {
		n.set(text, len(characters), reach)
		return
	}
	last := len(characters) - stretch
	for at := 0; at <= last; at++ {
		edge := reach
		if at != 0 {
			edge &^= reachLeft
		}
		if at != last {
			edge &^= reachRight | reachPadding
		}
		n.set(string(characters[at:at+stretch]), stretch, edge)
	}
}

func (n needles) set(text string, length int, how reach) {
	if n[length] == nil {
		n[length] = map[string]reach{}
	}
	if known, found := n[length][text]; !found || known&reachAlone != 0 {
		n[length][text] = how
	}
}

// find calls found for each occurrence in the text.
func (n needles) find(text []rune, found func(start, end int)) {
	// Offsets of the characters in the text's bytes, so that pieces of it are looked up without copying.
	content, offsets := string(text), make([]int, 0, len(text)+1)
	for at := range content {
		offsets = append(offsets, at)
	}
	offsets = append(offsets, len(content))
	for length, wanted := range n {
		for at := 0; at+length <= len(text); at++ {
			reach, matches := wanted[content[offsets[at]:offsets[at+length]]]
			if !matches {
				continue
			}
			start, end := at, at+length
			if reach&reachAlone != 0 && (start > 0 && isWord(text[start-1]) || end < len(text) && isWord(text[end])) {
				continue
			}
			if reach&reachInset != 0 {
				start, end = start+1, end-1
			}
			if reach&reachLeft != 0 && start > 0 && isBase64(text[start-1]) {
				start--
			}
			if reach&reachRight != 0 && end < len(text) && isBase64(text[end]) {
				end++
			}
			for reach&reachPadding != 0 && end < len(text) && text[end] == '=' {
				end++
			}
			found(start, end)
		}
	}
}

func isWord(character rune) bool { return unicode.IsLetter(character) || unicode.IsNumber(character) }

func isBase64(character rune) bool {
	return character < utf8.RuneSelf && (isWord(character) || strings.ContainsRune("_+/-", character))
}

func (r *Redactor) prepareNeedles() {
	r.plain, r.dense, r.beginnings = needles{}, needles{}, map[string]bool{}
	for _, text := range r.texts {
		text = strings.ToValidUTF8(text, "\ufffd")
		if text == "" {
			continue
		}
		if utf8.RuneCountInString(text) < shortest {
			for _, quote := range []string{`"`, "'", "`"} {
				r.plain.add(quote+text+quote, reachInset)
			}
			// Words of a few letters occur in every message.
			if strings.ContainsFunc(text, func(character rune) bool { return !unicode.IsLetter(character) }) {
				r.plain.add(text, reachAlone)
			}
			continue
		}
		for _, form := range unique(text, unescapedFully(text)) {
			if utf8.RuneCountInString(form) < shortest {
				continue
			}
			r.addText(form)
			lines := strings.FieldsFunc(form, func(character rune) bool { return character == '\n' || character == '\r' })
			several := strings.ContainsAny(form, "\r\n")
			for _, line := range lines {
				if line = strings.TrimSpace(line); several && utf8.RuneCountInString(line) >= shortest {
					r.addText(line)
				}
			}
			r.addDense(form, several)
		}
		for _, form := range unique(text, strings.TrimSpace(text)) {
			for encoded, reach := range encodings(form) {
				r.plain.add(encoded, reach)
				if reach&reachPadding != 0 {
					// Base64 is wrapped into lines.
					r.addDense(encoded, false)
				}
			}
		}
	}
}

func (r *Redactor) addText(text string) {
	r.plain.add(text, 0)
	if strings.Contains(text, " ") {
		r.plain.add(strings.ReplaceAll(text, " ", "+"), 0)
	}
	characters := []rune(text)
	for length := shortest; length < min(stretch, len(characters)); length++ {
		r.beginnings[string(characters[:length])] = true
	}
}

func (r *Redactor) addDense(text string, always bool) {
	packed := strings.Map(func(character rune) rune {
		if isSpace(character) {
			return -1
		}
		return character
	}, text)
	if count := utf8.RuneCountInString(packed); count >= stretch || always && count >= shortest {
		r.dense.add(packed, 0)
	}
}

// encodings returns a text in hexadecimal and in base64. A base64 text depends on the position in the longer text that
// is encoded, so there are three of them.
func encodings(text string) map[string]reach {
	result := map[string]reach{}
	if characters := []rune(text); len(characters) > longestEncoded {
		text = string(characters[:longestEncoded])
	}
	if len(text) < shortest {
		return result
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_")
	add := func(encoded string, reach reach) {
		if len(encoded) >= shortestEncoded {
			result[encoded] = reach
			result[urlSafe.Replace(encoded)] = reach
		}
	}
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + text))
		bits := (before + len(text)) * 8
		edges := reachPadding
		if before > 0 {
			edges |= reachLeft
		}
		if bits%6 != 0 {
			edges |= reachRight
		}
		if before == 0 {
			add(encoded, reachPadding)
			for _, width := range base64Widths {
				if width < len(encoded) {
					add(encoded[(len(encoded)-1)/width*width:], reachPadding)
				}
			}
		}
		add(encoded[(before*8+5)/6:bits/6], edges)
	}
	encoded := hex.EncodeToString([]byte(text))
	result[encoded], result[strings.ToUpper(encoded)] = 0, 0
	return result
}

// layer is a text that was derived from a message. For each of its characters it has the byte offset in the message.
type layer struct {
	text         []rune
	starts, ends []int
}

func plainLayer(text string) *layer {
	result := &layer{}
	for at := 0; at < len(text); {
		character, size := utf8.DecodeRuneInString(text[at:])
		result.put(character, at, at+size)
		at += size
	}
	return result
}

func (l *layer) put(character rune, start, end int) {
	l.text, l.starts, l.ends = append(l.text, character), append(l.starts, start), append(l.ends, end)
}

func isSpace(character rune) bool { return character == ' ' || '\t' <= character && character <= '\r' }

func (l *layer) withoutSpace() *layer {
	result := &layer{}
	for at, character := range l.text {
		if !isSpace(character) {
			result.put(character, l.starts[at], l.ends[at])
		}
	}
	return result
}

var (
	escapes = regexp.MustCompile(`\\(?:u\{([\da-fA-F]{1,6})\}|u([\da-fA-F]{4})|U([\da-fA-F]{8})|x([\da-fA-F]{2})|([0-3][0-7]{2})|([abfnrtv0"'\x60\\/]))` +
		`|%([\da-fA-F]{2})|&(?:#x([\da-fA-F]{1,6})|#(\d{1,7})|(quot|apos|amp|lt|gt));`)
	controls = map[string]rune{"a": '\a', "b": '\b', "f": '\f', "n": '\n', "r": '\r', "t": '\t', "v": '\v', "0": 0}
	entities = map[string]rune{"quot": '"', "apos": '\'', "amp": '&', "lt": '<', "gt": '>'}
)

// The groups of escapes.
const (
	groupBraced = iota + 1
	groupShort
	groupLong
	groupHex
	groupOctal
	groupControl
	groupPercent
	groupEntityHex
	groupEntityDecimal
	groupEntity
)

// escapedByte is a byte that a message contains as a number.
type escapedByte struct {
	value      byte
	start, end int
}

// unescaped returns the layer with one level of escapes undone, or the same layer when there are none.
func (l *layer) unescaped() *layer {
	content := string(l.text)
	matches := escapes.FindAllStringSubmatchIndex(content, -1)
	if len(matches) == 0 {
		return l
	}
	result := &layer{}
	var bytes []escapedByte
	putBytes := func() {
		for len(bytes) > 0 {
			var sequence []byte
			for _, escaped := range bytes[:min(len(bytes), utf8.UTFMax)] {
				sequence = append(sequence, escaped.value)
			}
			character, size := utf8.DecodeRune(sequence)
			if character == utf8.RuneError && size == 1 {
				character = rune(sequence[0])
			}
			result.put(character, l.starts[bytes[0].start], l.ends[bytes[size-1].end-1])
			bytes = bytes[size:]
		}
	}
	// copied counts characters, and offset their bytes.
	copied, offset := 0, 0
	copyUntil := func(end int) {
		if offset < end {
			putBytes()
		}
		for ; offset < end; copied++ {
			result.put(l.text[copied], l.starts[copied], l.ends[copied])
			offset += utf8.RuneLen(l.text[copied])
		}
	}
	var high rune
	for _, match := range matches {
		copyUntil(match[0])
		start := copied
		// Escapes are ASCII, so they have as many characters as bytes.
		copied, offset = copied+match[1]-match[0], match[1]
		group := func(index int) (string, bool) {
			if match[2*index] < 0 {
				return "", false
			}
			return content[match[2*index]:match[2*index+1]], true
		}
		if value, found := firstNumber(group, map[int]int{groupHex: 16, groupPercent: 16, groupOctal: 8}); found {
			bytes = append(bytes, escapedByte{byte(value), start, copied})
			continue
		}
		putBytes()
		character, numbered := firstNumber(group, map[int]int{
			groupBraced: 16, groupShort: 16, groupLong: 16, groupEntityHex: 16, groupEntityDecimal: 10,
		})
		if name, found := group(groupEntity); found {
			character = entities[name]
		} else if name, found := group(groupControl); found {
			if character, found = controls[name]; !found {
				character, _ = utf8.DecodeRuneInString(name)
			}
		}
		from := l.starts[start]
		// JSON writes a character beyond 16 bits as two escapes.
		if low := numbered && 0xdc00 <= character && character <= 0xdfff; low && high != 0 {
			character = (high-0xd800)<<10 + (character - 0xdc00) + 0x10000
			from = result.starts[len(result.starts)-1]
			end := len(result.text) - 1
			result.text, result.starts, result.ends = result.text[:end], result.starts[:end], result.ends[:end]
		}
		high = 0
		if numbered && 0xd800 <= character && character <= 0xdbff && match[1] < len(content) && content[match[1]] == '\\' {
			high = character
		}
		if !utf8.ValidRune(character) {
			character = utf8.RuneError
		}
		result.put(character, from, l.ends[copied-1])
	}
	putBytes()
	copyUntil(len(content))
	return result
}

// firstNumber returns the number in the group that matched. bases are the numbers' bases by group.
func firstNumber(group func(int) (string, bool), bases map[int]int) (rune, bool) {
	for index, base := range bases {
		if digits, found := group(index); found {
			value, err := strconv.ParseInt(digits, base, 32)
			if err != nil {
				value = utf8.RuneError
			}
			return rune(value), true
		}
	}
	return 0, false
}

func unescapedFully(text string) string {
	current := plainLayer(text)
	for range escapeLevels {
		next := current.unescaped()
		if next == current {
			break
		}
		current = next
	}
	return string(current.text)
}

// cutBeginnings finds the beginnings of secrets that a message cuts off with "…" or "...".
func (r *Redactor) cutBeginnings(text []rune, found func(start, end int)) {
	for end, character := range text {
		dots := character == '.' && end+2 < len(text) && text[end+1] == '.' && text[end+2] == '.'
		if character != '…' && !dots {
			continue
		}
		for length := min(stretch-1, end); length >= shortest; length-- {
			if r.beginnings[string(text[end-length:end])] {
				found(end-length, end)
				break
			}
		}
	}
}

// span is a part of a message, as byte offsets.
type span struct{ start, end int }

// replaced returns the message with its spans replaced. Spans that overlap or adjoin are replaced as one. White space
// around a secret stays, and so does what is already replaced.
func replaced(message string, spans []span) string {
	spans = slices.DeleteFunc(spans, func(one span) bool {
		if one.end-one.start > len(replacement) {
			return false
		}
		from := max(0, one.end-len(replacement))
		at := strings.Index(message[from:min(len(message), one.start+len(replacement))], replacement)
		return at >= 0 && from+at <= one.start && one.end <= from+at+len(replacement)
	})
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var merged []span
	for _, next := range spans {
		if last := len(merged) - 1; last >= 0 && next.start <= merged[last].end {
			merged[last].end = max(merged[last].end, next.end)
		} else {
			merged = append(merged, next)
		}
	}
	var result strings.Builder
	copied := 0
	for _, one := range merged {
		for one.start < one.end && isSpace(rune(message[one.start])) {
			one.start++
		}
		for one.start < one.end && isSpace(rune(message[one.end-1])) {
			one.end--
		}
		if one.start < one.end {
			result.WriteString(message[copied:one.start])
			result.WriteString(replacement)
			copied = one.end
		}
	}
	result.WriteString(message[copied:])
	return result.String()
}

func unique(texts ...string) []string {
	slices.Sort(texts)
	return slices.Compact(texts)
}
