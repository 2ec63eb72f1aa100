package rediskeys

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A replyReader reads the items of a script's reply one after the other. An item
// that is missing or has another type reads as zero and sets bad.
type replyReader struct {
	items any // []any
	next  int
	bad   bool
}

func (r *replyReader) remaining() int {
	items, _ := r.items.([]any)
	return len(items) - r.next
}

func (r *replyReader) item() any {
	if r.remaining() <= 0 {
		r.bad = true
		return nil
	}
	r.next++
	return r.items.([]any)[r.next-1]
}

func (r *replyReader) text() string {
	s, ok := r.item().(string)
	r.bad = r.bad || !ok
	return s
}

func (r *replyReader) flag() bool { return r.text() == "1" }

// number reads a small decimal number.
func (r *replyReader) number() int {
	n, err := strconv.Atoi(r.text())
	r.bad = r.bad || err != nil
	return n
}

func (r *replyReader) time() time.Time {
	ms, err := strconv.ParseInt(r.text(), 10, 64)
	r.bad = r.bad || err != nil
	return fromMillis(ms)
}

// texts reads a list. It returns nil for an empty one.
func (r *replyReader) texts() []string {
	items, ok := r.item().([]any)
	in := replyReader{items: items}
	var all []string
	if n := in.remaining(); n > 0 {
		all = make([]string, 0, n)
	}
	for in.remaining() > 0 {
		all = append(all, in.text())
	}
	r.bad = r.bad || !ok || in.bad
	return all
}

// entries reads entries of a log: lists of their fields.
func (r *replyReader) entries() []rotation.LogEntry {
	items, ok := r.item().([]any)
	in := replyReader{items: items}
	var all []rotation.LogEntry
	for in.remaining() > 0 {
		f := replyReader{items: in.item()}
		e := rotation.LogEntry{Op: ring.Op(f.text()), Tenant: f.text(), KID: f.text()}
		e.Seq, _ = strconv.Atoi(f.text()) // anyone may write anything there
		e.Actor, e.Nonce, e.MAC = f.text(), f.text(), []byte(f.text())
		r.bad = r.bad || f.bad
		all = append(all, e)
	}
	r.bad = r.bad || !ok || in.bad
	return all
}

// acks reads acknowledgements, instance and value in turn, and sorts them by instance.
func (r *replyReader) acks() []rotation.RawAck {
	pairs := r.texts()
	r.bad = r.bad || len(pairs)%2 != 0
	var all []rotation.RawAck
	for i := 1; i < len(pairs); i += 2 {
		all = append(all, rotation.RawAck{Instance: pairs[i-1], Sealed: []byte(pairs[i])})
	}
	slices.SortFunc(all, func(a, b rotation.RawAck) int { return strings.Compare(a.Instance, b.Instance) })
	return all
}

// listedFields returns the fields of a ring from a list of names and values in turn.
func listedFields(items []any) (fields map[string][]byte, ok bool) {
	in := replyReader{items: items}
	fields = make(map[string][]byte, len(items)/2)
	for in.remaining() > 0 {
		name := in.text()
		fields[name] = []byte(in.text())
	}
	return fields, !in.bad
}

// unpackFields returns the fields of a ring from an array of names and values in turn in MessagePack. Each name
// has memory of its own, since a keyring holds kids for long; all values lie in one other piece.
func unpackFields(packed string) (fields map[string][]byte, ok bool) {
	values := []byte(packed)
	n, at, ok := unpackLength(packed, 0, 0x90, 0x0f, 0xdc)
	if !ok || n%2 != 0 || n < 0 || n > len(packed) {
		return nil, false
	}
	fields = make(map[string][]byte, n/2)
	for range n / 2 {
		nameAt, name, ok := unpackText(packed, at)
		if !ok {
			return nil, false
		}
		valueAt, value, ok := unpackText(packed, nameAt+name)
		if !ok {
			return nil, false
		}
		at = valueAt + value
		fields[strings.Clone(packed[nameAt:nameAt+name])] = values[valueAt:at:at]
	}
	if at < len(packed) {
		return nil, false
	}
	return fields, true
}

// unpackText returns where the text begins whose header is at, and its length.
func unpackText(packed string, at int) (begin, length int, ok bool) {
	if strings.HasPrefix(packed[at:], "\xd9") && at+1 < len(packed) {
		begin, length = at+2, int(packed[at+1])
	} else if length, begin, ok = unpackLength(packed, at, 0xa0, 0x1f, 0xda); !ok {
		return 0, 0, false
	}
	return begin, length, 0 <= length && length <= len(packed)-begin // an int may have 32 bits
}

// unpackLength reads the header at of an array or a text: fixed is the first byte of a short one, with the length
// in the bits of mask, and wide that of one with a length of two bytes. The next value has four.
func unpackLength(packed string, at int, fixed, mask, wide byte) (length, next int, ok bool) {
	if at >= len(packed) {
		return 0, 0, false
	}
	first, size := packed[at], 0
	switch {
	case first&^mask == fixed:
		return int(first & mask), at + 1, true
	case first == wide:
		size = 2
	case first == wide+1:
		size = 4
	default:
		return 0, 0, false
	}
	if at++; len(packed)-at < size {
		return 0, 0, false
	}
	for _, b := range []byte(packed[at : at+size]) {
		length = length<<8 | int(b)
	}
	return length, at + size, true
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// ceil returns d in units, rounded up.
func ceil(d, unit time.Duration) int64 {
	n := floor(d, unit)
	if time.Duration(n)*unit != d {
		n++
	}
	return n
}

// floor returns d in units, rounded down.
func floor(d, unit time.Duration) int64 {
	n := d / unit
	if d%unit < 0 {
		n--
	}
	return int64(n)
}

// placeArgs returns a place as the scripts take it. If Redis cannot have made its
// ID, no log has that entry, and Redis would refuse to look for it: then both are
// empty, which the scripts treat as a place that is not proved.
func placeArgs(p rotation.Place) (id, nonce string) {
	if _, _, ok := parseID(p.ID); !ok {
		return "", ""
	}
	return p.ID, p.Nonce
}

// parseID reads the ID of a log entry: milliseconds, a hyphen and a number, both
// without leading zeros.
func parseID(id string) (ms, n uint64, ok bool) {
	left, right, _ := strings.Cut(id, "-")
	ms, err1 := strconv.ParseUint(left, 10, 64)
	n, err2 := strconv.ParseUint(right, 10, 64)
	ok = err1 == nil && err2 == nil && id == strconv.FormatUint(ms, 10)+"-"+strconv.FormatUint(n, 10)
	return ms, n, ok
}
