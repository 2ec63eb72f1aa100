package seal

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The vectors are written and read here as docs/formats.md says, with the standard library alone,
// so that the package and its test cannot share a mistake.
//
//	go test ./rotation/internal/seal -run Vectors -write-vectors
var writeVectors = flag.Bool("write-vectors", false, "write testdata/vectors.json again")

const vectorsFile = "testdata/vectors.json"

type vectors struct {
	Comment string            `json:"comment"`
	KEK     vectorKEK         `json:"kek"`
	Tenant  string            `json:"tenant"`
	Key     vectorKey         `json:"tenant_key"`
	Records []vectorRecord    `json:"records"`
	Facts   []vectorFact      `json:"facts"`
	Fields  map[string]string `json:"fields"`  // the whole ring, values in hex
	Refused []vectorRefused   `json:"refused"` // the ring with one more or another field
}

type vectorKEK struct {
	Line  string `json:"line"` // as in KEYTURN_KEK
	ID    string `json:"id"`
	Check string `json:"check"`
	Wrap  string `json:"wrap_key"`
	Facts string `json:"facts_key"`
}

type vectorKey struct {
	ID    string `json:"id"`
	Key   string `json:"key"`
	Nonce string `json:"nonce"`
}

type vectorRecord struct {
	KID         string    `json:"kid"`
	Seq         uint32    `json:"seq"`
	Algorithm   string    `json:"alg"`
	Created     uint64    `json:"created"`
	ActivateAt  uint64    `json:"activate_at"`
	SignUntil   uint64    `json:"sign_until"`
	Origin      string    `json:"origin"`
	NoKID       bool      `json:"no_kid"`
	Durations   [9]uint64 `json:"durations"`
	PolicyAlg   string    `json:"policy_alg"`
	Public      string    `json:"public"`
	Material    string    `json:"material"`
	Nonce       string    `json:"nonce"`
	SignedText  string    `json:"signed_text,omitempty"` // by the key, where that is deterministic
	SignedBytes string    `json:"signature,omitempty"`
}

type vectorFact struct {
	Kind string `json:"kind"`
	KID  string `json:"kid"`
	At   uint64 `json:"at"`
}

type vectorRefused struct {
	Name  string `json:"name"`
	Field string `json:"field"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hkdf1 is HKDF-SHA-256 without salt, for 32 bytes (RFC 5869).
func hkdf1(key []byte, info string) []byte {
	extract := hmac.New(sha256.New, make([]byte, 32))
	extract.Write(key)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write([]byte(info + "\x01"))
	return expand.Sum(nil)
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }
func flag1(b bool) []byte { return map[bool][]byte{false: {0}, true: {1}}[b] }
func (k vectorKEK) name(t testing.TB) []byte {
	return slices.Concat([]byte{byte(len(k.ID))}, []byte(k.ID), unhex(t, k.Check))
}

func (v *vectors) sealKey(t testing.TB) []byte {
	aad := slices.Concat([]byte("kt\x01K"), unhex(t, v.Key.ID), v.KEK.name(t), str(v.Tenant))
	nonce := unhex(t, v.Key.Nonce)
	return slices.Concat(aad, nonce, gcm(t, unhex(t, v.KEK.Wrap)).Seal(nil, nonce, unhex(t, v.Key.Key), aad))
}

func (v *vectors) sealRecord(t testing.TB, r vectorRecord) []byte {
	aad := slices.Concat([]byte("kt\x01R"), binary.BigEndian.AppendUint32(nil, r.Seq), u64(r.Created), u64(r.ActivateAt), u64(r.SignUntil),
		[]byte(r.Origin[:1]), flag1(r.NoKID))
	for _, d := range r.Durations {
		aad = append(aad, u64(d)...)
	}
	aad = slices.Concat(aad, unhex(t, v.Key.ID), str(v.Tenant), str(r.KID), str(r.Algorithm), str(r.PolicyAlg), str(string(unhex(t, r.Public))))
	nonce := unhex(t, r.Nonce)
	return slices.Concat(aad, nonce, gcm(t, unhex(t, v.Key.Key)).Seal(nil, nonce, unhex(t, r.Material), aad))
}

func (v *vectors) sealFact(t testing.TB, tenant string, f vectorFact) []byte {
	open := slices.Concat([]byte("kt\x01F"), u64(f.At), v.KEK.name(t))
	mac := hmac.New(sha256.New, unhex(t, v.KEK.Facts))
	mac.Write(slices.Concat(open, []byte(f.Kind), str(tenant), str(f.KID)))
	return mac.Sum(open)
}

func (f vectorFact) field() string {
	switch f.Kind {
	case "d":
		return "dead"
	case "g":
		return "gone"
	}
	return f.Kind + ":" + f.KID
}

func newVectors(t testing.TB) *vectors {
	key := []byte("keyturn test vectors: key no. 1!")
	v := &vectors{
		Comment: "Examples for docs/formats.md. Bytes are in hexadecimal, times in milliseconds. The keys are public: use them nowhere.",
		KEK: vectorKEK{
			Line:  base64.StdEncoding.EncodeToString(key),
			ID:    hex.EncodeToString(hkdf1(key, "keyturn/1/kek-id")[:8]),
			Check: hex.EncodeToString(hkdf1(key, "keyturn/1/kek-check")[:8]),
			Wrap:  hex.EncodeToString(hkdf1(key, "keyturn/1/kek-wrap")),
			Facts: hex.EncodeToString(hkdf1(key, "keyturn/1/kek-facts")),
		},
		Tenant: "acmé",
		Key: vectorKey{ID: "0011223344556677", Key: hex.EncodeToString([]byte("keyturn test vectors: tenant key")),
			Nonce: hex.EncodeToString([]byte("key nonce 01"))},
		Fields: make(map[string]string),
	}
	const day = 86_400_000
	base := vectorRecord{Created: 1_800_000_000_123, ActivateAt: 1_800_000_000_123, SignUntil: 1_800_000_000_123 + 60*day, Origin: "generated",
		Durations: [9]uint64{30 * day, 15 * day, 900_000, 30_000, 5_000, 60_000, 60_000, day, 0}}

	hs := base
	hs.KID, hs.Seq, hs.Algorithm, hs.PolicyAlg = base64.RawURLEncoding.EncodeToString([]byte("sixteen bytes ok")), 1, "HS256", "HS256"
	hs.Material, hs.Nonce = hex.EncodeToString([]byte("a secret of HS256 for no one now")), hex.EncodeToString([]byte("record no. 1"))
	hs.SignedText = "a text"
	mac := hmac.New(sha256.New, unhex(t, hs.Material))
	mac.Write([]byte(hs.SignedText))
	hs.SignedBytes = hex.EncodeToString(mac.Sum(nil))

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
	ed.Seq, ed.Algorithm, ed.PolicyAlg, ed.Durations[8], ed.ActivateAt = 3, "EdDSA", "EdDSA", 3_600_000, base.ActivateAt+60*day
	ed.SignUntil = ed.ActivateAt + 60*day
	ed.Public, ed.Material = der(t, edKey)
	ed.KID = thumbprint(fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64(edKey.Public().(ed25519.PublicKey))))
	ed.Nonce, ed.SignedText = hex.EncodeToString([]byte("record no. 3")), "a text"
	ed.SignedBytes = hex.EncodeToString(ed25519.Sign(edKey, []byte("a text")))

	legacy := base
	legacy.KID, legacy.Seq, legacy.Algorithm, legacy.PolicyAlg, legacy.Origin, legacy.NoKID = "old: the one", 1, "HS512", "ES256", "legacy", true
	legacy.Durations[8] = 3_600_000
	legacy.Material, legacy.Nonce = hex.EncodeToString(bytes.Repeat([]byte("a legacy secret!"), 4)), hex.EncodeToString([]byte("record no. 4"))

	v.Records = []vectorRecord{hs, es, ed, legacy}
	for i, kind := range []string{"x", "a", "f", "r", "w"} {
		v.Facts = append(v.Facts, vectorFact{Kind: kind, KID: v.Records[i%4].KID, At: 1_800_000_001_000 + uint64(i)})
	}
	v.Facts = append(v.Facts, vectorFact{Kind: "g", At: base.Created - 1})
	v.Fields["tk:"+v.Key.ID] = hex.EncodeToString(v.sealKey(t))
	for _, r := range v.Records {
		v.Fields["k:"+r.KID] = hex.EncodeToString(v.sealRecord(t, r))
	}
	for _, f := range v.Facts {
		v.Fields[f.field()] = hex.EncodeToString(v.sealFact(t, v.Tenant, f))
	}
	v.Fields["head"] = hex.EncodeToString([]byte("3"))
	v.Fields["p:"+hs.KID] = hex.EncodeToString([]byte("1800000000123"))
	v.refuse(t)
	return v
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

// refuse makes the vectors that must not open.
func (v *vectors) refuse(t testing.TB) {
	hs, es := v.Records[0], v.Records[1]
	refuse := func(why, name, field string, value []byte) {
		v.Refused = append(v.Refused, vectorRefused{Name: name, Field: field, Value: hex.EncodeToString(value), Why: why})
	}
	edit := func(field string, change func([]byte) []byte) []byte { return change(unhex(t, v.Fields[field])) }
	set := func(i int, b byte) func([]byte) []byte { return func(v []byte) []byte { v[i] = b; return v } }
	hsField, esField, key := "k:"+hs.KID, "k:"+es.KID, "tk:"+v.Key.ID

	late, early := hs, hs
	late.SignUntil++
	early.ActivateAt--
	body := unhex(t, v.Fields[hsField])
	body = body[len(body)-60:]
	head := func(r vectorRecord) []byte { b := v.sealRecord(t, r); return b[:len(b)-60] }
	refuse("tampered", "a record that signs for longer", hsField, slices.Concat(head(late), body))
	refuse("tampered", "a record that signs sooner", hsField, slices.Concat(head(early), body))
	refuse("tampered", "a record in another's place", esField, unhex(t, v.Fields[hsField]))
	refuse("tampered", "the last byte of a record", hsField, edit(hsField, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }))
	refuse("tampered", "a revocation made a promotion", "a:"+hs.KID, unhex(t, v.Fields["x:"+hs.KID]))
	refuse("tampered", "a revocation of another tenant", "x:"+es.KID, v.sealFact(t, "globex", vectorFact{Kind: "x", KID: es.KID, At: 1_800_000_001_000}))
	refuse("tampered", "a revocation made dead", "dead", unhex(t, v.Fields["x:"+hs.KID]))
	refuse("tampered", "what is gone made dead", "dead", unhex(t, v.Fields["gone"]))
	refuse("tampered", "a revocation made what is gone", "gone", unhex(t, v.Fields["x:"+hs.KID]))
	refuse("tampered", "more gone than is", "gone", edit("gone", set(11, 0xff)))
	refuse("tampered", "a revocation at another time", "x:"+hs.KID, edit("x:"+hs.KID, set(11, 0)))
	refuse("tampered", "a tenant key under another id", "tk:0011223344556678", unhex(t, v.Fields[key]))
	refuse("wrong_kek", "a tenant key with another check value", key, edit(key, set(12+1+16, 0xee)))
	refuse("wrong_kek", "a fact with another check value", "x:"+hs.KID, edit("x:"+hs.KID, set(12+1+16, 0xee)))
	refuse("newer", "a record of version 2", hsField, edit(hsField, set(2, 2)))
	refuse("newer", "a fact of version 2", "x:"+hs.KID, []byte("kt\x02"))
	refuse("newer", "a fact of an unknown kind", "y:"+hs.KID, unhex(t, v.Fields["x:"+hs.KID]))
	refuse("malformed", "a record of version 0", hsField, edit(hsField, set(2, 0)))
	refuse("malformed", "a fact as a record", hsField, unhex(t, v.Fields["x:"+hs.KID]))
	refuse("malformed", "a fact with a byte more", "x:"+hs.KID, append(unhex(t, v.Fields["x:"+hs.KID]), 0))
	refuse("malformed", "rubbish", hsField, []byte("rubbish"))

	wrong := es
	wrong.KID, wrong.Nonce = "not-its-thumbprint", hex.EncodeToString([]byte("record no. 5"))
	refuse("malformed", "a sealed record whose kid is no thumbprint", "k:"+wrong.KID, v.sealRecord(t, wrong))
	confused := es
	confused.Algorithm, confused.Material, confused.Nonce = "HS256", es.Public, hex.EncodeToString([]byte("record no. 6"))
	refuse("malformed", "a sealed record whose secret is a public key", esField, v.sealRecord(t, confused))
}

func readVectors(t testing.TB) *vectors {
	t.Helper()
	doc, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *vectors) ring(t testing.TB) map[string][]byte {
	fields := make(map[string][]byte)
	for field, value := range v.Fields {
		fields[field] = unhex(t, value)
	}
	return fields
}

// TestVectorsByHand reads the ring of the file as docs/formats.md says.
func TestVectorsByHand(t *testing.T) {
	if *writeVectors {
		doc, err := json.MarshalIndent(newVectors(t), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorsFile, append(doc, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	v := readVectors(t)
	kek, err := base64.StdEncoding.DecodeString(v.KEK.Line)
	if err != nil {
		t.Fatal(err)
	}
	want := vectorKEK{Line: v.KEK.Line, ID: hex.EncodeToString(hkdf1(kek, "keyturn/1/kek-id")[:8]), Check: hex.EncodeToString(hkdf1(kek, "keyturn/1/kek-check")[:8]),
		Wrap: hex.EncodeToString(hkdf1(kek, "keyturn/1/kek-wrap")), Facts: hex.EncodeToString(hkdf1(kek, "keyturn/1/kek-facts"))}
	if v.KEK != want {
		t.Errorf("KEK %+v, want %+v", v.KEK, want)
	}
	readByHand(t, v, v.ring(t))
}

// readByHand checks that the ring holds the records and facts of v.
func readByHand(t *testing.T, v *vectors, opened map[string][]byte) {
	t.Helper()
	wrapped := opened["tk:"+v.Key.ID]
	n := len(wrapped) - 12 - 32 - 16
	if want := slices.Concat([]byte("kt\x01K"), unhex(t, v.Key.ID), v.KEK.name(t), str(v.Tenant)); !bytes.Equal(wrapped[:n], want) {
		t.Errorf("tenant key: header %x, want %x", wrapped[:n], want)
	}
	key, err := gcm(t, unhex(t, v.KEK.Wrap)).Open(nil, wrapped[n:n+12], wrapped[n+12:], wrapped[:n])
	if err != nil || hex.EncodeToString(key) != v.Key.Key {
		t.Fatalf("tenant key: %x, %v", key, err)
	}
	for _, r := range v.Records {
		blob := opened["k:"+r.KID]
		material := unhex(t, r.Material)
		n := len(blob) - 12 - len(material) - 16
		fixed := 4 + 4 + 3*8 + 2 + 9*8 + 8
		rest := blob[fixed:n]
		text := func() string {
			size := int(rest[0])<<8 | int(rest[1])
			s := string(rest[2 : 2+size])
			rest = rest[2+size:]
			return s
		}
		got := vectorRecord{
			Seq: binary.BigEndian.Uint32(blob[4:]), Created: binary.BigEndian.Uint64(blob[8:]),
			ActivateAt: binary.BigEndian.Uint64(blob[16:]), SignUntil: binary.BigEndian.Uint64(blob[24:]),
			Origin: map[byte]string{'g': "generated", 'i': "imported", 'l': "legacy"}[blob[32]], NoKID: blob[33] == 1,
			Nonce: hex.EncodeToString(blob[n : n+12]), SignedText: r.SignedText, SignedBytes: r.SignedBytes,
		}
		for i := range got.Durations {
			got.Durations[i] = binary.BigEndian.Uint64(blob[34+8*i:])
		}
		tenant := text()
		got.KID, got.Algorithm, got.PolicyAlg, got.Public = text(), text(), text(), hex.EncodeToString([]byte(text()))
		opened, err := gcm(t, key).Open(nil, blob[n:n+12], blob[n+12:], blob[:n])
		if err != nil {
			t.Errorf("record %q: %v", r.KID, err)
		}
		got.Material = hex.EncodeToString(opened)
		if got != r || tenant != v.Tenant || len(rest) > 0 || hex.EncodeToString(blob[106:114]) != v.Key.ID || string(blob[:4]) != "kt\x01R" {
			t.Errorf("record %+v of %q\nwant   %+v", got, tenant, r)
		}
	}
	for _, f := range v.Facts {
		blob := opened[f.field()]
		open := blob[:len(blob)-32]
		mac := hmac.New(sha256.New, unhex(t, v.KEK.Facts))
		mac.Write(slices.Concat(open, []byte(f.Kind), str(v.Tenant), str(f.KID)))
		if string(blob[:4]) != "kt\x01F" || binary.BigEndian.Uint64(blob[4:]) != f.At || !bytes.Equal(open[12:], v.KEK.name(t)) || !bytes.Equal(mac.Sum(open[:len(open):len(open)]), blob) {
			t.Errorf("fact %+v: %x", f, blob)
		}
	}
}

// TestVectors reads the same ring with the package.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	keks, err := ParseKEKs([]byte(v.KEK.Line))
	if err != nil || keks.IDs()[0] != v.KEK.ID {
		t.Fatalf("KEK %v, %v", keks, err)
	}
	opened, err := OpenRing(keks, v.Tenant, v.ring(t))
	if err != nil {
		t.Fatal(err)
	}
	if opened.Head != 3 || len(opened.Records) != len(v.Records) {
		t.Errorf("head %d, %d records", opened.Head, len(opened.Records))
	}
	ms := func(n uint64) time.Time { return time.UnixMilli(int64(n)).UTC() }
	for _, want := range v.Records {
		i := slices.IndexFunc(opened.Records, func(r OpenedRecord) bool { return r.KID == want.KID })
		if i < 0 {
			t.Errorf("no record %q", want.KID)
			continue
		}
		r := opened.Records[i]
		d := func(i int) time.Duration { return time.Duration(want.Durations[i]) * time.Millisecond }
		timing := ring.Policy{Algorithm: keystore.Algorithm(want.PolicyAlg), Every: d(0), Propagation: d(1), MaxTokenTTL: d(2), Leeway: d(3), ClockSkew: d(4),
			Freshness: d(5), Dwell: d(6), SignFor: d(7), ReaderStaleness: d(8)}
		wantRecord := ring.Record{Tenant: v.Tenant, KID: want.KID, Seq: int(want.Seq), Algorithm: keystore.Algorithm(want.Algorithm), Created: ms(want.Created),
			ActivateAt: ms(want.ActivateAt), SignUntil: ms(want.SignUntil), Origin: ring.Origin(want.Origin), NoKID: want.NoKID, Timing: timing}
		h, _, err := readHeader(v.ring(t)["k:"+want.KID])
		if err != nil || r.Record != wantRecord || hex.EncodeToString(h.public) != want.Public || r.TenantKey != v.Key.ID {
			t.Errorf("record %+v\nwant   %+v", r.Record, wantRecord)
		}
		if err := timing.Validate(); err != nil {
			t.Errorf("record %q: %v", want.KID, err)
		}
		if want.SignedText != "" {
			sig, err := signWith(&r, []byte(want.SignedText))
			if err != nil || hex.EncodeToString(sig) != want.SignedBytes || !r.Key.Verify([]byte(want.SignedText), sig) {
				t.Errorf("record %q signs %x, %v, want %s", want.KID, sig, err, want.SignedBytes)
			}
		}
	}
	var facts ring.Facts
	for _, f := range v.Facts {
		if f.Kind == "g" {
			facts.Collect(ms(f.At))
			continue
		}
		facts.Add(ring.FactKind(f.Kind[0]), f.KID, ms(f.At))
	}
	if !opened.Facts.Equal(facts) {
		t.Errorf("facts %v, want %v", opened.Facts, facts)
	}
}

func TestVectorsRefused(t *testing.T) {
	v := readVectors(t)
	keks, err := ParseKEKs([]byte(v.KEK.Line))
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]error{"tampered": ErrTampered, "wrong_kek": ErrWrongKEK, "newer": ErrNewer, "malformed": ErrMalformed}
	for _, tt := range v.Refused {
		fields := v.ring(t)
		fields[tt.Field] = unhex(t, tt.Value)
		_, err := OpenRing(keks, v.Tenant, fields)
		bad := new(ring.UnreadableError)
		if !errors.As(err, &bad) || !errors.Is(bad.Failed[tt.Field], reasons[tt.Why]) || reasons[tt.Why] == nil {
			t.Errorf("%s: %v, want %q refused as %s", tt.Name, err, tt.Field, tt.Why)
		}
		if len(bad.Failed) > 1 && !strings.HasPrefix(tt.Field, "tk:") {
			t.Errorf("%s: %d fields refused: %v", tt.Name, len(bad.Failed), err)
		}
	}
}

// TestVectorsAreCurrent: the file has what this test writes, and a ring that the package seals can
// be read by hand.
func TestVectorsAreCurrent(t *testing.T) {
	v := readVectors(t)
	again, file := newVectors(t), v.ring(t)
	if !maps.EqualFunc(again.ring(t), file, bytes.Equal) {
		t.Error("the file is not what this test writes: -write-vectors")
	}

	keks, err := ParseKEKs([]byte(v.KEK.Line))
	if err != nil {
		t.Fatal(err)
	}
	tk := makeTenantKey(v.Key.ID, [32]byte(unhex(t, v.Key.Key)))
	resealed := make(map[string][]byte)
	if resealed["tk:"+tk.ID], err = tk.wrap(keks.list[0], v.Tenant); err != nil {
		t.Fatal(err)
	}
	opened, err := OpenRing(keks, v.Tenant, file)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range v.Records {
		j := slices.IndexFunc(opened.Records, func(o OpenedRecord) bool { return o.KID == r.KID })
		m := &Material{Algorithm: keystore.Algorithm(r.Algorithm), KID: r.KID, secret: func() []byte { return unhex(t, r.Material) }}
		if r.Public != "" {
			m.public = unhex(t, r.Public)
		}
		blob := mustSeal(t, tk, opened.Records[j].Record, m)
		n := len(blob) - len(unhex(t, r.Material)) - 28
		v.Records[i].Nonce = hex.EncodeToString(blob[n : n+12])
		resealed["k:"+r.KID] = blob
	}
	for _, f := range v.Facts {
		blob, err := SealFact(keks, v.Tenant, ring.FactKind(f.Kind[0]), f.KID, time.UnixMilli(int64(f.At)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(blob, file[f.field()]) {
			t.Errorf("fact %+v: %x, want %x", f, blob, file[f.field()])
		}
		resealed[f.field()] = blob
	}
	readByHand(t, v, resealed)
}
