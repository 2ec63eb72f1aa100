package verifier

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// headers remember what the headers of good tokens say, by their base64url text:
// an issuer has but a handful, and each of its tokens begins with one of them.
// Only a token that was found good leaves its header, in the one place that its
// text has; whatever else was there gives way.
type headers struct {
	seed  maphash.Seed
	slots [128]atomic.Pointer[knownHeader]
}

type knownHeader struct {
	text string
	header
}

// maxHeaderText is the longest text that is remembered, in bytes.
const maxHeaderText = 512

func newHeaders() *headers { return &headers{seed: maphash.MakeSeed()} }

func (h *headers) slot(text string) *atomic.Pointer[knownHeader] {
	return &h.slots[maphash.String(h.seed, text)%uint64(len(h.slots))]
}

// find returns what a header says, or nil if that is not known.
func (h *headers) find(text string) *header {
	if k := h.slot(text).Load(); k != nil && k.text == text {
		return &k.header
	}
	return nil
}

// remember keeps what the header of a good token says.
func (h *headers) remember(text string, said header) {
	if len(text) <= maxHeaderText {
		// Not the token's own memory, nor that of its claims.
		h.slot(text).Store(&knownHeader{strings.Clone(text), said})
	}
}
