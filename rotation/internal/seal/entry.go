package seal

import (
	"cmp"
	"crypto/hmac"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// An Entry is an entry of the log of changes, with the facts of that change that end trust. So a
// reader learns them even if their fields are gone when it reads the ring.
type Entry struct {
	Op     ring.Op
	Tenant string
	KID    string // or ""
	Seq    int
	Actor  string // the instance that made the change
	Nonce  string // of the change: no two entries have the same
	Ends   []EndFact
}

// An EndFact is a fact that ends trust: a revocation, or that the ring was destroyed. In an
// [EndsDigest] it may also be [ring.FactCollected].
type EndFact struct {
	Kind ring.FactKind
	KID  string // or "" for a fact about the whole ring
	At   time.Time
	Life int // how many lives of the ring had ended; 0 but for [ring.FactDestroyed]
}

// compareEnds sorts by kind and kid, which no two facts of a ring share.
func compareEnds(a, b EndFact) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.KID, b.KID))
}

const maxEnds = math.MaxUint8 // in an entry of the log

// SealEntry returns the value of the field "mac" of an entry of the log: the facts with a MAC over
// them and the other fields, under the KEK that is named.
func SealEntry(keks *KEKs, under KEKName, e Entry) ([]byte, error) {
	if err := checkEntry(e); err != nil {
		return nil, err
	}
	e.Ends = slices.SortedFunc(slices.Values(e.Ends), compareEnds)
	for i, f := range e.Ends {
		if err := checkEnd(e.Tenant, f); err != nil {
			return nil, err
		}
		if i > 0 && compareEnds(e.Ends[i-1], f) == 0 {
			return nil, &ring.Error{Text: "an entry of the log with the same fact twice"}
		}
	}
	kek, err := keks.sealing(under)
	if err != nil {
		return nil, err
	}
	s := sealedEntry{ends: e.Ends, kek: kek.name}
	return append(s.append(nil), kek.mac(useLog, s.authenticated(e))...), nil
}

// OpenEntry returns e with the facts of mac, which the store has in the field "mac" of that entry.
// It ignores e.Ends. The error wraps one of ErrWrongKEK, ErrTampered, ErrNewer and ErrMalformed.
func OpenEntry(keks *KEKs, e Entry, mac []byte) (Entry, error) {
	e.Ends = nil
	s, sum, err := readSealedEntry(mac)
	if err != nil {
		return Entry{}, err
	}
	if err := checkEntry(e); err != nil {
		return Entry{}, &ring.Error{Kind: ErrMalformed, Text: "an entry of the log that no keyturn writes", Also: err}
	}
	kek, err := keks.find(s.kek)
	if err != nil {
		return Entry{}, err
	}
	if !hmac.Equal(sum, kek.mac(useLog, s.authenticated(e))) {
		return Entry{}, &ring.Error{Kind: ErrTampered, Text: "the entry of the log was changed, moved or forged"}
	}
	e.Ends = s.ends
	return e, nil
}

// A sealedEntry is the field "mac" of an entry of the log, without its MAC. The other fields of the
// entry are not in it, but the MAC covers them.
type sealedEntry struct {
	ends []EndFact // sorted by compareEnds
	kek  KEKName
}

// append appends the encoding:
//
//	start  number of facts  facts: kind, kid, at, life if it was destroyed  KEK name
func (s sealedEntry) append(b []byte) []byte {
	b = append(appendStart(b, blobEntry), byte(len(s.ends)))
	for _, f := range s.ends {
		b = appendDate(appendText(append(b, byte(f.Kind)), f.KID), f.At)
		if f.Kind == ring.FactDestroyed {
			b = binary.BigEndian.AppendUint32(b, uint32(f.Life))
		}
	}
	return s.kek.append(b)
}

// authenticated returns the message of the MAC: the encoding, and the other fields of the entry.
func (s sealedEntry) authenticated(e Entry) []byte {
	b := s.append(nil)
	for _, text := range []string{string(e.Op), e.Tenant, e.KID, e.Actor, e.Nonce} {
		b = appendText(b, text)
	}
	return binary.BigEndian.AppendUint32(b, uint32(e.Seq))
}

// readSealedEntry reads the facts and the MAC, which the caller checks.
func readSealedEntry(blob []byte) (s sealedEntry, mac []byte, err error) {
	r := reader{rest: blob}
	r.start(blobEntry)
	for range r.number(1, 0, maxEnds) {
		f := EndFact{Kind: ring.FactKind(r.take(1)[0]), KID: r.text(0, keystore.MaxKIDBytes), At: r.date()}
		if f.Kind == ring.FactDestroyed {
			f.Life = int(r.number(4, 1, maxSeq))
		}
		if r.err == nil && checkEnd("tenant", f) != nil {
			r.fail("not a fact that ends trust")
		}
		// Facts have one order, so that an entry has one encoding.
		if n := len(s.ends); r.err == nil && n > 0 && compareEnds(s.ends[n-1], f) >= 0 {
			r.fail("facts that are not sorted")
		}
		s.ends = append(s.ends, f)
	}
	s.kek = r.kekName()
	mac = r.mac()
	if r.err != nil {
		return sealedEntry{}, nil, r.err
	}
	return s, mac, nil
}

// checkEntry refuses an entry that no keyturn writes, except for its facts.
func checkEntry(e Entry) error {
	switch {
	case !isText(string(e.Op), 1, 32) || !isText(e.Actor, 0, maxInstance) || !isText(e.Nonce, 1, maxNonce):
		return &ring.Error{Text: "an entry of the log without op or nonce, or with a text that is too long or not UTF-8"}
	case !isText(e.Tenant, 1, ring.MaxTenantBytes) || !isText(e.KID, 0, keystore.MaxKIDBytes):
		return &ring.Error{Text: "an entry of the log without a tenant, or with a kid that is too long or not UTF-8"}
	case e.Seq < 0 || e.Seq > maxSeq:
		return &ring.Error{Text: fmt.Sprintf("an entry of the log with seq %d", e.Seq)}
	case len(e.Ends) > maxEnds:
		return &ring.Error{Text: fmt.Sprintf("an entry of the log with %d facts: want at most %d", len(e.Ends), maxEnds)}
	}
	return nil
}

// checkEnd refuses a fact that an entry of the log may not have. Of all facts only these end trust,
// and no instance may learn another one from the log: a promotion that was lost would come back.
func checkEnd(tenant string, f EndFact) error {
	if f.Kind != ring.FactRevoked && f.Kind != ring.FactDestroyed {
		return &ring.Error{Text: fmt.Sprintf("a fact of kind %q in an entry of the log", rune(f.Kind))}
	}
	if err := checkFact(tenant, f.Kind, f.KID); err != nil {
		return err
	}
	if destroyed := f.Kind == ring.FactDestroyed; destroyed != (f.Life > 0) || f.Life < 0 || f.Life > maxSeq {
		return &ring.Error{Text: fmt.Sprintf("a fact of kind %q with life %d in an entry of the log", rune(f.Kind), f.Life)}
	}
	return checkDate(f.At)
}
