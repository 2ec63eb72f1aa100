package seal

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/keyturn/keyturn/rotation/ring"
)

// A Head is the newest seq of a ring, and how many changes were made to the ring. A smaller count
// than one that was seen before is a loss: the store was rolled back.
type Head struct {
	Seq   int    // of the newest record, from 1; 0 if none was ever minted: there are only accepted keys
	Count uint64 // from 1
}

// SealHead returns what to store of a head: it with a MAC under the KEK that is named.
func SealHead(keks *KEKs, under KEKName, tenant string, h Head) ([]byte, error) {
	switch {
	case h.Seq < 0 || h.Seq > maxSeq || h.Count < 1:
		return nil, &ring.Error{Text: fmt.Sprintf("a head with seq %d and count %d", h.Seq, h.Count)}
	case !isText(tenant, 1, ring.MaxTenantBytes):
		return nil, &ring.Error{Text: fmt.Sprintf("a head of a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
	}
	kek, err := keks.sealing(under)
	if err != nil {
		return nil, err
	}
	s := sealedHead{head: h, kek: kek.name}
	return append(s.append(nil), kek.mac(useHead, s.authenticated(tenant))...), nil
}

// openHead returns the head from blob, which the store has in the ring of tenant.
func openHead(keks *KEKs, tenant string, blob []byte) (Head, error) {
	s, err := openSealedHead(keks, tenant, blob)
	return s.head, err
}

// openSealedHead is openHead with the name of the KEK. It returns the zero value with an error.
func openSealedHead(keks *KEKs, tenant string, blob []byte) (sealedHead, error) {
	if !isText(tenant, 1, ring.MaxTenantBytes) {
		return sealedHead{}, &ring.Error{Kind: ErrMalformed, Text: fmt.Sprintf("a head of a tenant of %d bytes", len(tenant))}
	}
	s, mac, err := readSealedHead(blob, keks.all()...)
	if err != nil {
		return sealedHead{}, err
	}
	kek, err := keks.find(s.kek)
	if err != nil {
		return sealedHead{}, err
	}
	if !kek.authentic(useHead, mac, func(b []byte) []byte { return s.appendAuthenticated(b, tenant) }) {
		return sealedHead{}, &ring.Error{Kind: ErrTampered, Text: "the head was changed, moved or forged"}
	}
	return s, nil
}

// A sealedHead is a head as the store has it, without its MAC. The tenant is not in it: it is told
// by its place, and the MAC covers it.
type sealedHead struct {
	head Head
	kek  KEKName
}

// append appends the encoding of the head:
//
//	start  seq  count  KEK name
func (s sealedHead) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(appendStart(b, blobHead), uint32(s.head.Seq))
	return s.kek.append(binary.BigEndian.AppendUint64(b, s.head.Count))
}

// authenticated returns the message of the MAC: the head, and its place.
func (s sealedHead) authenticated(tenant string) []byte { return s.appendAuthenticated(nil, tenant) }

// appendAuthenticated appends it to b.
func (s sealedHead) appendAuthenticated(b []byte, tenant string) []byte {
	return appendText(s.append(b), tenant)
}

// readSealedHead reads a head and its MAC, which the caller checks. known is as in reader.
func readSealedHead(blob []byte, known ...*kek) (s sealedHead, mac []byte, err error) {
	r := reader{rest: blob, known: known}
	r.start(blobHead)
	s.head.Seq = int(r.number(4, 0, maxSeq))
	s.head.Count = r.number(8, 1, math.MaxUint64)
	s.kek = r.kekName()
	mac = r.mac()
	return s, mac, r.err
}
