package jwt

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may nest, the outermost being 1.
const maxDepth = 32

// A Member is one member of a JSON object. Both texts may share memory with the
// scanned text.
type Member struct {
	Name  string // without quotes and escapes
	Value string // the text of the value, without white space around it
	At    int    // where Value begins in the scanned text
}

// A Scanner checks in one pass that a text is one strict JSON object (RFC 8259),
// and splits it into members. It is stricter than the RFC. It refuses
//
//   - a name that occurs twice in an object, at any depth: RFC 7519, section 4,
//     leaves the choice to the reader, and an attacker can play readers that
//     choose differently against each other;
//   - a lone surrogate, and text that is not UTF-8;
//   - a number that no float64 can hold;
//   - more than 32 levels of objects and arrays.
//
// It decodes a value only when a caller asks for it: see [String]. The zero
// Scanner is ready for use. A Scanner serves one goroutine at a time.
type Scanner struct {
	// Members are those of the outermost object. They are valid until the next
	// call of Scan or Forget.
	Members []Member

	text  string
	pos   int
	names []string // of all objects that are open at pos, outermost first
}

// Scan splits text into s.Members. It returns false, and leaves Members
// meaningless, if text is not one strict JSON object.
func (s *Scanner) Scan(text string) bool {
	s.text, s.pos = text, 0
	s.Members, s.names = s.Members[:0], s.names[:0]
	s.space()
	if s.peek() != '{' || !s.object(1) {
		return false
	}
	s.space()
	return s.pos == len(text)
}

// Forget clears every reference to the scanned text, and keeps the memory for the
// next text.
func (s *Scanner) Forget() {
	s.text = ""
	clear(s.Members[:cap(s.Members)])
	clear(s.names[:cap(s.names)])
}

// Small reports whether the memory of s is worth keeping. Forget clears all of it
// for every token, so a large one would cost more than it saves.
func (s *Scanner) Small() bool { return cap(s.Members) <= 128 && cap(s.names) <= 128 }

// peek returns the byte at pos, or 0 at the end: no JSON value begins with NUL.
func (s *Scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *Scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value scans any value at the given depth of the object or array around it.
func (s *Scanner) value(depth int) bool {
	switch c := s.peek(); c {
	case '"':
		_, ok := s.str()
		return ok
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

// object scans an object, whose opening brace is at pos.
func (s *Scanner) object(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		return true
	}
	seen := nameSet{first: len(s.names)}
	for {
		if s.peek() != '"' {
			return false
		}
		start := s.pos
		escaped, ok := s.str()
		if !ok {
			return false
		}
		name := s.text[start+1 : s.pos-1]
		if escaped {
			name = unescape(name)
		}
		if !seen.add(s, name) {
			return false
		}
		s.space()
		if s.peek() != ':' {
			return false
		}
		s.pos++
		s.space()
		start = s.pos
		if !s.value(depth) {
			return false
		}
		if depth == 1 {
			s.Members = append(s.Members, Member{name, s.text[start:s.pos], start})
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			s.pos++
			s.names = s.names[:seen.first]
			return true
		default:
			return false
		}
	}
}

// A nameSet holds the names of one open object. They stand in Scanner.names from
// first on. A map joins them once there are many, so that a hostile object does
// not cost quadratic time.
type nameSet struct {
	first  int
	filter uint64 // a bit for each name's length and ends, so that most names need no comparison
	many   map[string]struct{}
}

// add returns false if the object has the name already.
func (n *nameSet) add(s *Scanner, name string) bool {
	const few = 32
	bit := uint64(1)
	if len(name) > 0 {
		bit <<= (uint(len(name)) + 5*uint(name[0]) + 11*uint(name[len(name)-1])) & 63
	}
	names := s.names[n.first:]
	switch {
	case len(names) < few:
		if n.filter&bit != 0 && slices.Contains(names, name) {
			return false
		}
	default:
		if n.many == nil {
			n.many = make(map[string]struct{}, 2*few)
			for _, o := range names {
				n.many[o] = struct{}{}
			}
		}
		if _, dup := n.many[name]; dup {
			return false
		}
		n.many[name] = struct{}{}
	}
	n.filter |= bit
	s.names = append(s.names, name)
	return true
}

// array scans an array, whose opening bracket is at pos.
func (s *Scanner) array(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case ']':
			s.pos++
			return true
		default:
			return false
		}
	}
}

func (s *Scanner) literal(want string) bool {
	if !strings.HasPrefix(s.text[s.pos:], want) {
		return false
	}
	s.pos += len(want)
	return true
}

// number scans a number (RFC 8259, section 6).
func (s *Scanner) number() bool {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	whole := s.digits()
	if whole == 0 || whole > 1 && s.text[s.pos-whole] == '0' {
		return false
	}
	// Below 10^308 everything fits: the largest float64 is 1.8e308.
	mayOverflow := whole > 308
	if s.peek() == '.' {
		s.pos++
		if s.digits() == 0 {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return false
		}
		mayOverflow = true
	}
	if mayOverflow {
		_, err := strconv.ParseFloat(s.text[start:s.pos], 64)
		return err == nil
	}
	return true
}

// digits skips decimal digits and returns how many there were.
func (s *Scanner) digits() int {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// str scans a string, whose opening quote is at pos, and reports whether it
// holds an escape.
func (s *Scanner) str() (escaped, ok bool) {
	text := s.text
	for i := s.pos + 1; i < len(text); {
		if i+8 <= len(text) {
			if n := plain(word(text[i : i+8])); n > 0 {
				i += n
				continue
			}
		}
		switch c := text[i]; {
		case c == '"':
			s.pos = i + 1
			return escaped, true
		case c == '\\':
			_, n := escape(text[i:])
			if n == 0 {
				return false, false
			}
			escaped = true
			i += n
		case c < ' ':
			return false, false
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && n == 1 {
				return false, false
			}
			i += n
		}
	}
	return false, false
}

// plain returns how many of the eight bytes in w, from its lowest, are ASCII and
// neither a quote, a backslash nor a control character.
func plain(w uint64) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	odd := w | (w - ' '*ones) | (w ^ '"'*ones - ones) | (w ^ '\\'*ones - ones)
	// All eight are plain if no bit is set. The subtractions may borrow from a
	// higher byte, but only from bytes above the first odd one.
	return bits.TrailingZeros64(odd&tops) / 8
}

// word returns eight bytes as a number, the first one lowest.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// escape decodes the escape sequence that text begins with, and returns its
// length in bytes. The length is 0 if the sequence is invalid. A surrogate must
// be half of a pair.
func escape(text string) (r rune, n int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch c := text[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(text[2:])
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(text) < 12 || text[6] != '\\' || text[7] != 'u' {
			return 0, 0
		}
		low, ok := hex4(text[8:])
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0
		}
		return r, 12
	}
	return 0, 0
}

func hex4(text string) (r rune, ok bool) {
	if len(text) < 4 {
		return 0, false
	}
	for _, c := range []byte(text[:4]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape decodes the inside of a string that has been scanned.
func unescape(inside string) string {
	var b strings.Builder
	b.Grow(len(inside))
	for {
		i := strings.IndexByte(inside, '\\')
		if i < 0 {
			b.WriteString(inside)
			return b.String()
		}
		b.WriteString(inside[:i])
		r, n := escape(inside[i:])
		b.WriteRune(r)
		inside = inside[i+n:]
	}
}
