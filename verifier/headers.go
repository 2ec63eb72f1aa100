package verifier

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// headers is a table of the parsed headers of good tokens, by their base64url text.
// An issuer uses a handful of headers, and each of its tokens begins with one of
// them. A text has one slot, where a new header replaces the old one. Only good
// tokens enter their headers, so that an attacker cannot flush the table.
type headers struct {
	seed  maphash.Seed
	slots [128]atomic.Pointer[knownHeader]
}

type knownHeader struct {
	text string
	header
}

// maxHeaderText is the length of the longest text in the table, in bytes.
const maxHeaderText = 512

func newHeaders() *headers { return &headers{seed: maphash.MakeSeed()} }

func (h *headers) slot(text string) *atomic.Pointer[knownHeader] {
	return &h.slots[maphash.String(h.seed, text)%uint64(len(h.slots))]
}

// find returns the parsed header, or nil if the table does not have it.
func (h *headers) find(text string) *header {
	if k := h.slot(text).Load(); k != nil && k.text == text {
		return &k.header
	}
	return nil
}

// remember enters the parsed header of a good token.
func (h *headers) remember(text string, parsed header) {
	if len(text) <= maxHeaderText {
		// text and typ are parts of the token, and would keep all of it in memory.
		parsed.typ = strings.Clone(parsed.typ)
		h.slot(text).Store(&knownHeader{strings.Clone(text), parsed})
	}
}
