package seal

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// vectorRealms are the realms of the vectors.
var vectorRealms = []string{"", "staging"}

// newVectors makes the vectors.
func newVectors(t testing.TB) *vectors {
	v := &vectors{Comment: "Examples for docs/formats.md. Bytes are in hexadecimal, times in milliseconds. The keys are public: use them nowhere."}
	for _, text := range []string{"keyturn test vectors: key no. 1!", "keyturn test vectors: key no. 2!"} {
		derive := func(info string) string { return hex.EncodeToString(hkdf1([]byte(text), "keyturn/1/"+info)) }
		k := vectorKEK{Line: base64.StdEncoding.EncodeToString([]byte(text)), ID: derive("kek-id")[:16], Check: derive("kek-check")[:16]}
		for _, realm := range vectorRealms {
			k.Realms = append(k.Realms, vectorRealm{Realm: realm, Check: derive("kek-realm:" + realm)[:16], Wrap: derive("kek-wrap:" + realm),
				Facts: derive("kek-facts:" + realm), Head: derive("kek-head:" + realm), Acks: derive("kek-acks:" + realm), Log: derive("kek-log:" + realm)})
		}
		v.KEKs = append(v.KEKs, k)
	}
	for _, realm := range vectorRealms {
		v.addRing(t, realm)
	}
	for _, realm := range vectorRealms {
		v.refuse(t, v.ringOf(realm), v.ringOf(map[string]string{"": "staging", "staging": ""}[realm]))
		v.addAcks(t, realm)
		v.addEntries(t, realm)
	}
	v.Ends.Facts = []vectorEnd{{"acme", "d", "", 1, 3}, {"acme", "x", "a", 2, 0}, {"acme", "x", "ab", 3, 0}, {"acmé", "g", "", 1_800_000_000_000, 0}, {"b", "x", "a", 4, 0}}
	v.Ends.Digest, v.Ends.None = v.Ends.digest(), vectorEnds{}.digest()
	return v
}

func (v *vectors) ringOf(realm string) *vectorRing {
	return v.Rings[slices.IndexFunc(v.Rings, func(r *vectorRing) bool { return r.Realm == realm })]
}

// addRing adds a ring: its first tenant key is under the first KEK, its second was made under the
// first and is under the second.
func (v *vectors) addRing(t testing.TB, realm string) {
	r := &vectorRing{Realm: realm, Tenant: "acmé", Records: newRecords(t), Accepts: newAccepts(t), Head: vectorHead{KEK: 1, Seq: 3, Count: 1<<32 + 7}, Fields: make(map[string]string)}
	for i, text := range []string{"keyturn test vectors: tenant key", "keyturn vectors: tenant key no 2"} {
		r.Keys = append(r.Keys, vectorKey{ID: []string{"0011223344556677", "8899aabbccddeeff"}[i], KEK: i, Key: hex.EncodeToString([]byte(text)),
			Commit: hex.EncodeToString(hkdf1([]byte(text), "keyturn/1/commit")), Nonce: hex.EncodeToString(fmt.Appendf(nil, "key nonce 0%d", i+1))})
	}
	for i, kind := range []string{"x", "a", "f", "r", "w"} {
		r.Facts = append(r.Facts, vectorFact{KEK: i % 2, Kind: kind, KID: r.Records[i%4].KID, At: 1_800_000_001_000 + uint64(i)})
	}
	r.Facts = append(r.Facts, vectorFact{Kind: "u", KID: r.Accepts[1].KID, At: r.Accepts[1].Until + 1}, vectorFact{KEK: 1, Kind: "x", KID: r.Accepts[2].KID, At: 1_800_000_001_005})
	r.Facts = append(r.Facts, vectorFact{KEK: 1, Kind: "g", At: r.Records[0].Created - 1, Life: 3})
	for i, k := range r.Keys {
		r.Fields["tk:"+k.ID] = hex.EncodeToString(v.sealKey(t, r, i))
	}
	for _, rec := range r.Records {
		r.Fields["k:"+rec.KID] = hex.EncodeToString(r.sealRecord(t, rec))
	}
	for _, a := range r.Accepts {
		r.Fields["v:"+a.KID] = hex.EncodeToString(r.sealAccept(t, a))
	}
	for _, f := range r.Facts {
		r.Fields[f.field()] = hex.EncodeToString(v.sealFact(t, r.Realm, r.Tenant, f))
	}
	r.Fields["head"] = hex.EncodeToString(v.sealHead(t, r.Realm, r.Tenant, r.Head))
	r.Fields["p:"+r.Records[0].KID] = hex.EncodeToString([]byte("1800000000123"))
	v.Rings = append(v.Rings, r)
}

// newRecords makes records of each kind of key.
func newRecords(t testing.TB) []vectorRecord {
	const day = 86_400_000
	base := vectorRecord{Created: 1_800_000_000_123, ActivateAt: 1_800_000_000_123, SignUntil: 1_800_000_000_123 + 60*day, Origin: "generated", Life: 3,
		Durations: [9]uint64{30 * day, 15 * day, 900_000, 30_000, 5_000, 60_000, 60_000, day, 0}}

	hs := base
	hs.KID, hs.Seq, hs.Algorithm, hs.PolicyAlg = base64.RawURLEncoding.EncodeToString([]byte("sixteen bytes ok")), 1, "HS256", "HS256"
	hs.Material, hs.Nonce = hex.EncodeToString([]byte("a secret of HS256 for no one now")), hex.EncodeToString([]byte("record no. 1"))
	hs.SignedText = "a text"
	hs.SignedBytes = hex.EncodeToString(hmac1(unhex(t, hs.Material), []byte(hs.SignedText)))

	es := base
	scalar := sha256.Sum256([]byte("keyturn test vectors: P-256"))
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
	if err != nil {
		t.Fatal(err)
	}
	point, err := p256.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	es.Seq, es.Algorithm, es.PolicyAlg, es.Durations[8], es.ActivateAt = 2, "ES256", "ES256", 3_600_000, base.ActivateAt+30*day
	es.Public, es.Material = der(t, p256)
	es.KID = thumbprint(fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, b64(point[1:33]), b64(point[33:])))
	es.Nonce = hex.EncodeToString([]byte("record no. 2"))

	ed := base
	seed := sha256.Sum256([]byte("keyturn test vectors: Ed25519"))
	edKey := ed25519.NewKeyFromSeed(seed[:])
	ed.TenantKey, ed.Seq, ed.Algorithm, ed.PolicyAlg, ed.Durations[8], ed.ActivateAt = 1, 3, "EdDSA", "EdDSA", 3_600_000, base.ActivateAt+60*day
	ed.SignUntil = ed.ActivateAt + 60*day
	ed.Public, ed.Material = der(t, edKey)
	ed.KID = thumbprint(fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64(edKey.Public().(ed25519.PublicKey))))
	ed.Nonce, ed.SignedText = hex.EncodeToString([]byte("record no. 3")), "a text"
	ed.SignedBytes = hex.EncodeToString(ed25519.Sign(edKey, []byte("a text")))

	legacy := base
	legacy.TenantKey, legacy.KID, legacy.Seq, legacy.Algorithm, legacy.PolicyAlg, legacy.Origin, legacy.NoKID = 1, "old: the one", 1, "HS512", "ES256", "legacy", true
	legacy.Durations[8] = 3_600_000
	legacy.Hold, legacy.Longest, ed.Waits = true, 30*day, true
	legacy.Material, legacy.Nonce = hex.EncodeToString(bytes.Repeat([]byte("a legacy secret!"), 4)), hex.EncodeToString([]byte("record no. 4"))
	return []vectorRecord{hs, es, ed, legacy}
}

// newAccepts makes accepted keys of each kind: a secret, a public key, and a weak secret without kid.
// They are in the order of their kids.
func newAccepts(t testing.TB) []vectorAccept {
	const day = 86_400_000
	base := vectorAccept{Created: 1_800_000_000_123, Until: 1_800_000_000_123 + 30*day}
	hs, ed, weak := base, base, base
	hs.KID, hs.Algorithm, hs.Material, hs.Nonce = "a partner's", "HS256", hex.EncodeToString([]byte("a secret of HS256 that is theirs")), hex.EncodeToString([]byte("accept no. 1"))
	seed := sha256.Sum256([]byte("keyturn test vectors: accepted Ed25519"))
	ed.KID, ed.TenantKey, ed.Algorithm, ed.Life, ed.Nonce = "b: with a colon", 1, "Ed25519", 2, hex.EncodeToString([]byte("accept no. 2"))
	ed.Public, _ = der(t, ed25519.NewKeyFromSeed(seed[:]))
	weak.KID, weak.Algorithm, weak.NoKID, weak.Weak = "c", "HS512", true, true
	weak.Material, weak.Nonce = hex.EncodeToString([]byte("a weak secret :(")), hex.EncodeToString([]byte("accept no. 3"))
	return []vectorAccept{hs, ed, weak}
}

func der(t testing.TB, key crypto.Signer) (public, private string) {
	t.Helper()
	pub, err1 := x509.MarshalPKIXPublicKey(key.Public())
	priv, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(pub), hex.EncodeToString(priv)
}

func thumbprint(jwk string) string {
	sum := sha256.Sum256([]byte(jwk))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sealKey wraps the i-th tenant key of r.
func (v *vectors) sealKey(t testing.TB, r *vectorRing, i int) []byte {
	k := r.Keys[i]
	header := slices.Concat([]byte("kt\x01K"), unhex(t, v.KEKs[k.Born].Check), v.name(t, k.KEK, r.Realm))
	wrap := unhex(t, v.KEKs[k.KEK].realm(r.Realm).Wrap)
	return box1(t, wrap, hkdf1(wrap, "keyturn/1/commit"), header, slices.Concat(unhex(t, k.ID), str(r.Tenant)), unhex(t, k.Nonce), unhex(t, k.Key))
}

// recordHeader returns what is in the open of a record.
func (r *vectorRing) recordHeader(t testing.TB, rec vectorRecord) []byte {
	code := func(alg string) []byte { return []byte{byte(slices.Index(algs, alg))} }
	header := slices.Concat([]byte("kt\x01R"), u32(rec.Seq), u64(rec.Created), u64(rec.ActivateAt), u64(rec.SignUntil),
		[]byte(rec.Origin[:1]), []byte{flag1(rec.NoKID)[0] | flag1(rec.Hold)[0]<<1 | flag1(rec.Waits)[0]<<2}, code(rec.Algorithm), code(rec.PolicyAlg))
	for _, d := range rec.Durations {
		header = append(header, u64(d)[3:]...)
	}
	return slices.Concat(header, u64(rec.Longest)[3:], u32(rec.Life), unhex(t, r.Keys[rec.TenantKey].ID), str(string(unhex(t, rec.Public))))
}

// sealRecord seals a record for r.
func (r *vectorRing) sealRecord(t testing.TB, rec vectorRecord) []byte {
	k := r.Keys[rec.TenantKey]
	return box1(t, unhex(t, k.Key), unhex(t, k.Commit), r.recordHeader(t, rec), slices.Concat(str(r.Tenant), str(rec.KID)), unhex(t, rec.Nonce), unhex(t, rec.Material))
}

// acceptHeader returns what is in the open of an accepted key.
func (r *vectorRing) acceptHeader(t testing.TB, a vectorAccept) []byte {
	flags := flag1(a.NoKID)[0] | flag1(a.Weak)[0]<<1
	return slices.Concat([]byte("kt\x01V"), u64(a.Created), u64(a.Until), []byte{flags, byte(slices.Index(algs, a.Algorithm))}, u32(a.Life),
		unhex(t, r.Keys[a.TenantKey].ID), str(string(unhex(t, a.Public))))
}

// sealAccept seals an accepted key for r.
func (r *vectorRing) sealAccept(t testing.TB, a vectorAccept) []byte {
	k := r.Keys[a.TenantKey]
	return box1(t, unhex(t, k.Key), unhex(t, k.Commit), r.acceptHeader(t, a), slices.Concat(str(r.Tenant), str(a.KID)), unhex(t, a.Nonce), unhex(t, a.Material))
}

func (v *vectors) sealFact(t testing.TB, realm, tenant string, f vectorFact) []byte {
	open := slices.Concat(f.start(), v.name(t, f.KEK, realm))
	return slices.Concat(open, hmac1(unhex(t, v.KEKs[f.KEK].realm(realm).Facts), open, []byte(f.Kind), str(tenant), str(f.KID)))
}

func (v *vectors) sealHead(t testing.TB, realm, tenant string, h vectorHead) []byte {
	open := slices.Concat([]byte("kt\x01H"), u32(h.Seq), u64(h.Count), v.name(t, h.KEK, realm))
	return slices.Concat(open, hmac1(unhex(t, v.KEKs[h.KEK].realm(realm).Head), open, str(tenant)))
}

// addAcks adds acknowledgements: one that says all, of an instance with another primary, one
// that says as little as it can, and one that names a run.
func (v *vectors) addAcks(t testing.TB, realm string) {
	full := &vectorAck{Realm: realm, KEKs: []int{1, 0}, Instance: "pod-ä/1", Bucket: 255, PlaceID: "1800000000123-0", Nonce: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		GoodSince: 1_800_000_000_000, At: 1_800_000_001_000, Applied: []vectorApplied{{"the first", true}, {"second", false}, {"2", true}}, Ends: hex.EncodeToString([]byte("a digest of ends")),
		Verifies: []string{"HS256", "ES256"}}
	least := &vectorAck{Realm: realm, KEKs: []int{0}, Instance: "b", PlaceID: "0-1", Nonce: "n", At: 1, Ends: hex.EncodeToString(make([]byte, 16))}
	ran := *least
	ran.Run, ran.GoodSince, ran.At = strings.Repeat("0123456789", 4), 1_800_000_000_000, 1_800_000_001_000
	for _, a := range []*vectorAck{full, least, &ran} {
		a.Value = hex.EncodeToString(v.sealAck(t, a))
		value := unhex(t, a.Value)
		edit := func(i int, b byte) []byte { c := bytes.Clone(value); c[i] = b; return c }
		check := 4 + 8 + 8 + 16 + 2 + len(a.PlaceID) + 2 + len(a.Nonce) + 1 + 1 + 16
		other := *a
		other.Realm = map[string]string{"": "staging", "staging": ""}[realm]
		refuse := func(why, name, field string, value []byte) {
			a.Refused = append(a.Refused, vectorRefused{Name: name, Field: field, Value: hex.EncodeToString(value), Why: why})
		}
		refuse("tampered", "another instance's", a.Instance+"x", value)
		refuse("tampered", "a later one", a.Instance, edit(10, 0xff))
		refuse("tampered", "other ends", a.Instance, edit(20, 0xff))
		refuse("tampered", "the last byte", a.Instance, edit(len(value)-1, value[len(value)-1]^1))
		refuse("wrong_kek", "another check value", a.Instance, edit(check, value[check]^1))
		refuse("wrong_realm", "another realm", a.Instance, v.sealAck(t, &other))
		refuse("newer", "version 2", a.Instance, edit(2, 2))
		if len(a.Applied) > 0 {
			holds := len(value) - 32 - (1 + 2 + len("2"))
			refuse("tampered", "one that holds no ring", a.Instance, edit(holds, 0))
			refuse("malformed", "one that holds the ring twice", a.Instance, edit(holds, 2))
			verifies := check - 17
			for range a.KEKs {
				verifies += 1 + 16 + 16
			}
			refuse("tampered", "other algorithms", a.Instance, edit(verifies+1, 2))
			refuse("malformed", "an unknown algorithm", a.Instance, edit(verifies+1, 99))
		}
		refuse("malformed", "a byte more", a.Instance, append(bytes.Clone(value), 0))
		refuse("malformed", "the text of an older format", a.Instance, []byte("1800000000123-0 ABC 0 1800000001000"))
		v.Acks = append(v.Acks, a)
	}
}

func (v *vectors) sealAck(t testing.TB, a *vectorAck) []byte {
	open := slices.Concat([]byte("kt\x01A"), u64(a.At), u64(a.GoodSince), unhex(t, a.Ends), str(a.PlaceID), str(a.Nonce), []byte{byte(len(a.KEKs))})
	for _, k := range a.KEKs {
		open = append(open, v.name(t, k, a.Realm)...)
	}
	open = append(open, byte(len(a.Verifies)))
	for _, alg := range a.Verifies {
		open = append(open, byte(slices.Index(algs, alg)))
	}
	open = append(open, byte(len(a.Applied)))
	for _, applied := range a.Applied {
		open = append(append(open, flag1(applied.Holds)...), str(applied.Nonce)...)
	}
	if a.Run != "" {
		open = append(open, str(a.Run)...)
	}
	return slices.Concat(open, hmac1(unhex(t, v.KEKs[a.KEKs[0]].realm(a.Realm).Acks), open, []byte{byte(a.Bucket >> 8), byte(a.Bucket)}, str(a.Instance)))
}

// addEntries adds entries of the log: one with facts, and one without.
func (v *vectors) addEntries(t testing.TB, realm string) {
	merge := &vectorEntry{Realm: realm, KEK: 1, Op: "merge", Tenant: "acmé", Actor: "pod-ä/1", Nonce: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		Ends: []vectorFact{{Kind: "d", At: 1_800_000_000_000, Life: 3}, {Kind: "x", KID: "a", At: 1_800_000_000_001}, {Kind: "x", KID: "b: c", At: 1_800_000_000_002}}}
	mint := &vectorEntry{Realm: realm, Op: "mint", Tenant: "acmé", KID: "k", Seq: 7, Actor: "a", Nonce: "n"}
	for _, e := range []*vectorEntry{merge, mint} {
		e.Value = hex.EncodeToString(v.sealEntry(t, e))
		value := unhex(t, e.Value)
		edit := func(i int, b byte) []byte { c := bytes.Clone(value); c[i] = b; return c }
		realmCheck := len(value) - 32 - 8
		later, swapped, promoted, dead, other := *e, *e, *e, *e, *e
		later.Nonce += "2"
		swapped.Ends = slices.Clone(e.Ends)
		slices.Reverse(swapped.Ends)
		promoted.Ends = []vectorFact{{Kind: "a", KID: "k", At: 1}}
		other.Realm = map[string]string{"": "staging", "staging": ""}[realm]
		refuse := func(why, name, field string, value []byte) {
			e.Refused = append(e.Refused, vectorRefused{Name: name, Field: field, Value: hex.EncodeToString(value), Why: why})
		}
		refuse("tampered", "another tenant's", e.Tenant+"x", value)
		refuse("tampered", "that of another change", e.Tenant, v.sealEntry(t, &later))
		refuse("tampered", "the last byte", e.Tenant, edit(len(value)-1, value[len(value)-1]^1))
		refuse("wrong_kek", "another check value", e.Tenant, edit(realmCheck-1, value[realmCheck-1]^1))
		refuse("wrong_realm", "another realm", e.Tenant, v.sealEntry(t, &other))
		refuse("newer", "version 2", e.Tenant, edit(2, 2))
		dead.Ends = []vectorFact{{Kind: "d", At: 1}}
		refuse("malformed", "destroyed, and no life has ended, authentic", e.Tenant, v.sealEntry(t, &dead))
		refuse("malformed", "a promotion, authentic", e.Tenant, v.sealEntry(t, &promoted))
		refuse("malformed", "a byte more", e.Tenant, append(bytes.Clone(value), 0))
		refuse("malformed", "nothing", e.Tenant, nil)
		if len(e.Ends) > 1 {
			refuse("malformed", "facts in another order, authentic", e.Tenant, v.sealEntry(t, &swapped))
		}
		v.Entries = append(v.Entries, e)
	}
}

func (v *vectors) sealEntry(t testing.TB, e *vectorEntry) []byte {
	open := slices.Concat([]byte("kt\x01L"), []byte{byte(len(e.Ends))})
	for _, f := range e.Ends {
		open = append(open, f.end()...)
	}
	open = append(open, v.name(t, e.KEK, e.Realm)...)
	return slices.Concat(open, hmac1(unhex(t, v.KEKs[e.KEK].realm(e.Realm).Log), open, str(e.Op), str(e.Tenant), str(e.KID), str(e.Actor), str(e.Nonce), u32(e.Seq)))
}

// refuse makes the vectors that must not open in the ring r. other is the ring of the other realm.
func (v *vectors) refuse(t testing.TB, r, other *vectorRing) {
	hs, es := r.Records[0], r.Records[1]
	refuse := func(why, name, field string, value []byte) {
		r.Refused = append(r.Refused, vectorRefused{Name: name, Field: field, Value: hex.EncodeToString(value), Why: why})
	}
	edit := func(field string, change func([]byte) []byte) []byte { return change(unhex(t, r.Fields[field])) }
	set := func(i int, b byte) func([]byte) []byte { return func(v []byte) []byte { v[i] = b; return v } }
	last := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	hsField, esField, key, revoked := "k:"+hs.KID, "k:"+es.KID, "tk:"+r.Keys[0].ID, "x:"+hs.KID

	late, early, moved := hs, hs, hs
	late.SignUntil++
	early.ActivateAt--
	moved.TenantKey = 1
	body := unhex(t, r.Fields[hsField])
	body = body[len(r.recordHeader(t, hs)):]
	refuse("tampered", "a record that signs for longer", hsField, slices.Concat(r.recordHeader(t, late), body))
	refuse("tampered", "a record that signs sooner", hsField, slices.Concat(r.recordHeader(t, early), body))
	refuse("tampered", "a record under the other tenant key", hsField, slices.Concat(r.recordHeader(t, moved), body))
	refuse("tampered", "a record in another's place", esField, unhex(t, r.Fields[hsField]))
	refuse("tampered", "the last byte of a record", hsField, edit(hsField, last))
	commitment := hmac1(unhex(t, r.Keys[1].Commit), r.recordHeader(t, hs), str(r.Tenant), str(hs.KID), body[:len(body)-32])
	refuse("tampered", "a record that AES-GCM opens, with the commitment to another tenant key", hsField, slices.Concat(r.recordHeader(t, hs), body[:len(body)-32], commitment))
	refuse("tampered", "a revocation made a promotion", "a:"+hs.KID, unhex(t, r.Fields[revoked]))
	refuse("tampered", "a revocation of another tenant", "x:"+es.KID, v.sealFact(t, r.Realm, "globex", vectorFact{Kind: "x", KID: es.KID, At: 1_800_000_001_000}))
	refuse("malformed", "a revocation made dead", "dead", unhex(t, r.Fields[revoked]))
	refuse("tampered", "what is gone made dead", "dead", unhex(t, r.Fields["gone"]))
	refuse("malformed", "a revocation made what is gone", "gone", unhex(t, r.Fields[revoked]))
	dead := func(life uint32) []byte {
		return v.sealFact(t, r.Realm, r.Tenant, vectorFact{Kind: "d", At: 1_800_000_000_000, Life: life})
	}
	refuse("tampered", "one life more has ended", "dead", set(15, 4)(dead(3)))
	refuse("tampered", "one life less has ended", "dead", set(15, 2)(dead(3)))
	refuse("malformed", "no life has ended, authentic", "dead", dead(0))
	refuse("tampered", "gone of another life", "gone", edit("gone", set(15, 4)))
	refuse("tampered", "more gone than is", "gone", edit("gone", set(11, 0xff)))
	refuse("tampered", "a revocation at another time", revoked, edit(revoked, set(11, 0)))
	refuse("tampered", "a tenant key under another id", "tk:0011223344556678", unhex(t, r.Fields[key]))
	refuse("tampered", "a tenant key born under the other KEK", key, edit(key, func(b []byte) []byte { copy(b[4:], unhex(t, v.KEKs[1].Check)); return b }))
	refuse("tampered", "a smaller count", "head", edit("head", set(15, 0)))
	refuse("tampered", "the head of another tenant", "head", v.sealHead(t, r.Realm, "globex", r.Head))
	refuse("wrong_kek", "a tenant key with another check value", key, edit(key, set(12+1+16, 0xee)))
	refuse("wrong_kek", "a fact with another check value", revoked, edit(revoked, set(12+1+16, 0xee)))
	refuse("wrong_kek", "a head with another check value", "head", edit("head", set(16+1+16, 0xee)))
	for _, field := range []string{key, revoked, "gone", "head"} {
		refuse("wrong_realm", "of another realm", field, unhex(t, other.Fields[field]))
	}
	refuse("newer", "a record of version 2", hsField, edit(hsField, set(2, 2)))
	refuse("newer", "a fact of version 2", revoked, []byte("kt\x02"))
	refuse("newer", "a fact of an unknown kind", "y:"+hs.KID, unhex(t, r.Fields[revoked]))
	refuse("malformed", "a record of version 0", hsField, edit(hsField, set(2, 0)))
	refuse("malformed", "a fact as a record", hsField, unhex(t, r.Fields[revoked]))
	refuse("malformed", "a fact with a byte more", revoked, append(unhex(t, r.Fields[revoked]), 0))
	refuse("malformed", "rubbish", hsField, []byte("rubbish"))
	refuse("malformed", "the head of an older format", "head", []byte("3"))

	v.refuseAccepts(t, r, refuse)

	wrong, confused := es, es
	wrong.KID, wrong.Nonce = "not-its-thumbprint", hex.EncodeToString([]byte("record no. 5"))
	refuse("malformed", "a sealed record whose kid is no thumbprint", "k:"+wrong.KID, r.sealRecord(t, wrong))
	confused.Algorithm, confused.Material, confused.Nonce = "HS256", es.Public, hex.EncodeToString([]byte("record no. 6"))
	refuse("malformed", "a sealed record whose secret is a public key", esField, r.sealRecord(t, confused))
}

// refuseAccepts makes those that are about accepted keys.
func (v *vectors) refuseAccepts(t testing.TB, r *vectorRing, refuse func(why, name, field string, value []byte)) {
	hs, ed := r.Accepts[0], r.Accepts[1]
	field, sealed := "v:"+hs.KID, unhex(t, r.Fields["v:"+hs.KID])
	body := sealed[len(r.acceptHeader(t, hs)):]
	edit := func(i int, b byte) []byte { c := bytes.Clone(sealed); c[i] = b; return c }
	later, moved := hs, hs
	later.Until++
	moved.TenantKey = 1
	refuse("tampered", "a key that is accepted for longer", field, slices.Concat(r.acceptHeader(t, later), body))
	refuse("tampered", "an accepted key under the other tenant key", field, slices.Concat(r.acceptHeader(t, moved), body))
	refuse("tampered", "an accepted key in another's place", "v:"+ed.KID, sealed)
	refuse("tampered", "an accepted key without kid", field, edit(20, 1))
	refuse("tampered", "a date of acceptance made a revocation", "x:"+ed.KID, unhex(t, r.Fields["u:"+ed.KID]))
	refuse("newer", "an accepted key of version 2", field, edit(2, 2))
	refuse("malformed", "an accepted key as a record", "k:"+hs.KID, sealed)
	refuse("malformed", "a record as an accepted key", field, unhex(t, r.Fields["k:"+r.Records[0].KID]))
	refuse("malformed", "an accepted key with an unknown flag", field, edit(20, 4))

	confused, ended, weak := hs, hs, ed
	confused.Material, confused.Nonce = ed.Public, hex.EncodeToString([]byte("accept no. 4"))
	ended.Until, ended.Nonce = ended.Created, hex.EncodeToString([]byte("accept no. 5"))
	weak.Weak, weak.Nonce = true, hex.EncodeToString([]byte("accept no. 6"))
	short := r.Accepts[2]
	short.Weak, short.Nonce = false, hex.EncodeToString([]byte("accept no. 7"))
	refuse("malformed", "a sealed acceptance whose secret is a public key", field, r.sealAccept(t, confused))
	refuse("malformed", "a sealed acceptance that ends when it begins", field, r.sealAccept(t, ended))
	refuse("malformed", "a sealed acceptance of a weak public key", "v:"+ed.KID, r.sealAccept(t, weak))
	refuse("malformed", "a sealed acceptance of a short secret that is not weak", "v:"+short.KID, r.sealAccept(t, short))
}
