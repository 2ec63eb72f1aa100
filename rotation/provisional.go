package rotation

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// PROVISIONAL: this file stands in for the sealed acknowledgements of package seal, so that the
// package works with the new Store. Nothing here is authenticated.

// appendAck returns an acknowledgement: kt 01 A, the date, good since, and the nonces of the entries
// that were applied.
func appendAck(at, goodSince time.Time, applied []string) []byte {
	b := binary.BigEndian.AppendUint64([]byte("kt\x01A"), uint64(at.UnixMilli()))
	since := uint64(0)
	if !goodSince.IsZero() {
		since = uint64(goodSince.UnixMilli())
	}
	return append(binary.BigEndian.AppendUint64(b, since), strings.Join(applied, " ")...)
}

// parseAck reads what appendAck wrote. applied reports whether it has the nonce.
func parseAck(raw RawAck, nonce string) (Ack, bool) {
	b := raw.Sealed
	if len(b) < 20 || string(b[:4]) != "kt\x01A" {
		return Ack{}, false
	}
	a := Ack{Instance: raw.Instance, At: time.UnixMilli(int64(binary.BigEndian.Uint64(b[4:]))).UTC()}
	if since := int64(binary.BigEndian.Uint64(b[12:])); since > 0 {
		a.GoodSince = time.UnixMilli(since).UTC()
	}
	a.Applied = nonce != "" && slices.Contains(strings.Fields(string(b[20:])), nonce)
	return a, true
}

// vouched reports whether another instance vouches for the store.
func (run *syncRun) vouched(b *bucket, reply *SyncReply) bool {
	if !b.state.Complete.IsZero() {
		return false
	}
	gap := run.asked.maxPollGap()
	return slices.ContainsFunc(reply.Acks, func(raw RawAck) bool {
		a, ok := parseAck(raw, "")
		return ok && a.Instance != run.k.cfg.Instance && !a.At.After(reply.Now) && reply.Now.Sub(a.At) < gap &&
			!a.GoodSince.IsZero() && reply.Now.Sub(a.GoodSince) >= 2*gap
	})
}

// apply remembers the nonces of the last entries that were applied.
func (b *bucket) apply(entries []LogEntry) {
	for _, e := range entries {
		if !slices.Contains(b.applied, e.Nonce) {
			b.applied = append(b.applied, e.Nonce)
		}
	}
	b.applied = b.applied[max(0, len(b.applied)-32):]
}
