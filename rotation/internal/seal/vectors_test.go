package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// The vectors are written and read here as docs/formats.md says, with the standard library alone,
// so that the package and its test cannot share a mistake. makevectors_test.go has the writer.
//
//	go test ./rotation/internal/seal -run Vectors -write-vectors
var writeVectors = flag.Bool("write-vectors", false, "write testdata/vectors.json again")

const vectorsFile = "testdata/vectors.json"

type vectors struct {
	Comment string         `json:"comment"`
	KEKs    []vectorKEK    `json:"keks"`  // the primary first
	Rings   []*vectorRing  `json:"rings"` // one for each realm
	Acks    []*vectorAck   `json:"acks"`
	Entries []*vectorEntry `json:"entries"`
	Ends    vectorEnds     `json:"ends"`
}

type vectorKEK struct {
	Line   string        `json:"line"` // as in KEYTURN_KEK
	ID     string        `json:"id"`
	Check  string        `json:"check"`
	Realms []vectorRealm `json:"realms"`
}

type vectorRealm struct {
	Realm string `json:"realm"`
	Check string `json:"check"`
	Wrap  string `json:"wrap_key"`
	Facts string `json:"facts_key"`
	Head  string `json:"head_key"`
	Acks  string `json:"acks_key"`
	Log   string `json:"log_key"`
}

// A KEK is told by its index in the list.
type vectorRing struct {
	Realm   string            `json:"realm"`
	Tenant  string            `json:"tenant"`
	Keys    []vectorKey       `json:"tenant_keys"`
	Records []vectorRecord    `json:"records"`
	Accepts []vectorAccept    `json:"accepts"`
	Facts   []vectorFact      `json:"facts"`
	Head    vectorHead        `json:"head"`
	Fields  map[string]string `json:"fields"`  // the whole ring, values in hex
	Refused []vectorRefused   `json:"refused"` // the ring with one more or another field
}

type vectorKey struct {
	ID     string `json:"id"`
	KEK    int    `json:"kek"`
	Born   int    `json:"born"` // the KEK that it was made under
	Key    string `json:"key"`
	Commit string `json:"commit_key"`
	Nonce  string `json:"nonce"`
}

type vectorRecord struct {
	TenantKey   int       `json:"tenant_key"` // its index
	KID         string    `json:"kid"`
	Seq         uint32    `json:"seq"`
	Algorithm   string    `json:"alg"`
	Created     uint64    `json:"created"`
	ActivateAt  uint64    `json:"activate_at"`
	SignUntil   uint64    `json:"sign_until"`
	Origin      string    `json:"origin"`
	NoKID       bool      `json:"no_kid"`
	Hold        bool      `json:"hold"`
	Waits       bool      `json:"waits"`
	Longest     uint64    `json:"longest"`
	Life        uint32    `json:"life"`
	Durations   [9]uint64 `json:"durations"`
	PolicyAlg   string    `json:"policy_alg"`
	Public      string    `json:"public"`
	Material    string    `json:"material"`
	Nonce       string    `json:"nonce"`
	SignedText  string    `json:"signed_text,omitempty"` // by the key, where that is deterministic
	SignedBytes string    `json:"signature,omitempty"`
}

type vectorAccept struct {
	TenantKey int    `json:"tenant_key"` // its index
	KID       string `json:"kid"`
	Algorithm string `json:"alg"`
	Created   uint64 `json:"created"`
	Until     uint64 `json:"until"`
	NoKID     bool   `json:"no_kid"`
	Weak      bool   `json:"weak"`
	Life      uint32 `json:"life"`
	Public    string `json:"public"`
	Material  string `json:"material"`
	Nonce     string `json:"nonce"`
}

type vectorFact struct {
	KEK  int    `json:"kek"`
	Kind string `json:"kind"`
	KID  string `json:"kid"`
	At   uint64 `json:"at"`
	Life uint32 `json:"life"` // of a fact about the whole ring
}

type vectorHead struct {
	KEK   int    `json:"kek"`
	Seq   uint32 `json:"seq"`
	Count uint64 `json:"count"`
}

// vectorAck is an acknowledgement by an instance that has the KEKs in the order of the list.
type vectorAck struct {
	Realm     string          `json:"realm"`
	KEKs      []int           `json:"keks"`
	Instance  string          `json:"instance"`
	Bucket    uint16          `json:"bucket"`
	PlaceID   string          `json:"place_id"`
	Nonce     string          `json:"place_nonce"`
	GoodSince uint64          `json:"good_since"`
	At        uint64          `json:"at"`
	Verifies  []string        `json:"verifies"`
	Applied   []vectorApplied `json:"applied"`
	Ends      string          `json:"ends"`
	Run       string          `json:"run,omitempty"` // one without a run is as it was before there were runs
	Value     string          `json:"value"`
	Refused   []vectorRefused `json:"refused"` // other values; Field is the name of the instance
}

type vectorApplied struct {
	Nonce string `json:"nonce"`
	Holds bool   `json:"holds"`
}

type vectorEntry struct {
	Realm   string          `json:"realm"`
	KEK     int             `json:"kek"`
	Op      string          `json:"op"`
	Tenant  string          `json:"tenant"`
	KID     string          `json:"kid"`
	Seq     uint32          `json:"seq"`
	Actor   string          `json:"actor"`
	Nonce   string          `json:"nonce"`
	Ends    []vectorFact    `json:"ends"`
	Value   string          `json:"mac"`
	Refused []vectorRefused `json:"refused"` // other values; Field is the name of the tenant
}

type vectorEnds struct {
	Facts  []vectorEnd `json:"facts"`
	Digest string      `json:"digest"`
	None   string      `json:"digest_of_none"`
}

type vectorEnd struct {
	Tenant string `json:"tenant"`
	Kind   string `json:"kind"`
	KID    string `json:"kid"`
	At     uint64 `json:"at"`
	Life   uint32 `json:"life"`
}

type vectorRefused struct {
	Name  string `json:"name"`
	Field string `json:"field"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

// reasons are the errors by the word that stands for them in the vectors.
var reasons = map[string]error{"tampered": ErrTampered, "wrong_kek": ErrWrongKEK, "wrong_realm": ErrWrongRealm, "newer": ErrNewer, "malformed": ErrMalformed}

// wantReason reports an error of the test unless err is the one that the vector names.
func wantReason(t *testing.T, r vectorRefused, err error) {
	t.Helper()
	if reasons[r.Why] == nil || !errors.Is(err, reasons[r.Why]) || errors.Is(err, ErrWrongRealm) != (r.Why == "wrong_realm") {
		t.Errorf("%s: %v, want it refused as %s", r.Name, err, r.Why)
	}
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
	return hmac1(hmac1(make([]byte, 32), key), []byte(info+"\x01"))
}

// hmac1 is HMAC-SHA-256.
func hmac1(key []byte, message ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(slices.Concat(message...))
	return h.Sum(nil)
}

// gcm returns AES-GCM, which takes the nonces of the vectors. Where only approved algorithms may
// run, GCM must choose its nonces itself, so a test asks for an exception. The package does not.
func gcm(t testing.TB, key []byte) (aead cipher.AEAD) {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	fips140.WithoutEnforcement(func() { aead, err = cipher.NewGCM(block) })
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func str(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }
func flag1(b bool) []byte { return map[bool][]byte{false: {0}, true: {1}}[b] }

// algs are the codes of algorithms in a record.
var algs = strings.Fields("- HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA Ed25519")

// box1 seals: header, nonce, ciphertext, tag, commitment.
func box1(t testing.TB, key, commit, header, place, nonce, plaintext []byte) []byte {
	aad := slices.Concat(header, place)
	sealed := slices.Concat(nonce, gcm(t, key).Seal(nil, nonce, plaintext, aad))
	return slices.Concat(header, sealed, hmac1(commit, aad, sealed))
}

// unbox1 opens the part of blob after the header.
func unbox1(t testing.TB, key, commit, header, place, blob []byte) []byte {
	t.Helper()
	aad, sealed := slices.Concat(header, place), blob[len(header):len(blob)-32]
	if want := hmac1(commit, aad, sealed); !bytes.Equal(blob[len(blob)-32:], want) {
		t.Errorf("commitment %x, want %x", blob[len(blob)-32:], want)
	}
	plaintext, err := gcm(t, key).Open(nil, sealed[:12], sealed[12:], aad)
	if err != nil {
		t.Error(err)
	}
	return plaintext
}

// realm returns what a KEK has in a realm.
func (k vectorKEK) realm(name string) vectorRealm {
	return k.Realms[slices.IndexFunc(k.Realms, func(r vectorRealm) bool { return r.Realm == name })]
}

// name returns the name of a KEK in a sealed field.
func (v *vectors) name(t testing.TB, kek int, realm string) []byte {
	k := v.KEKs[kek]
	return slices.Concat([]byte{byte(len(k.ID))}, []byte(k.ID), unhex(t, k.Check), unhex(t, k.realm(realm).Check))
}

// keks returns the KEKs of the vectors as the package reads them.
func (v *vectors) keks(t testing.TB, realm string, which ...int) *KEKs {
	t.Helper()
	var lines []string
	for _, i := range which {
		lines = append(lines, v.KEKs[i].Line)
	}
	ks, err := ParseKEKs([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	if ks, err = ks.In(realm); err != nil {
		t.Fatal(err)
	}
	return ks
}

// start returns a fact up to the name of its KEK.
func (f vectorFact) start() []byte {
	if f.Kind == "d" || f.Kind == "g" {
		return slices.Concat([]byte("kt\x01D"), u64(f.At), u32(f.Life))
	}
	return slices.Concat([]byte("kt\x01F"), u64(f.At))
}

// end returns a fact as an entry of the log has it.
func (f vectorFact) end() []byte {
	b := slices.Concat([]byte(f.Kind), str(f.KID), u64(f.At))
	if f.Kind == "d" {
		b = append(b, u32(f.Life)...)
	}
	return b
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

// key returns the material as SealAccept takes it.
func (a vectorAccept) key(t testing.TB) any {
	t.Helper()
	if a.Public == "" {
		return unhex(t, a.Material)
	}
	pub, err := x509.ParsePKIXPublicKey(unhex(t, a.Public))
	if err != nil {
		t.Fatal(err)
	}
	return pub
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

// ring returns the fields of the ring.
func (r *vectorRing) ring(t testing.TB) map[string][]byte {
	fields := make(map[string][]byte)
	for field, value := range r.Fields {
		fields[field] = unhex(t, value)
	}
	return fields
}

// TestVectorsByHand reads the file as docs/formats.md says.
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
	for _, k := range v.KEKs {
		key, err := base64.StdEncoding.DecodeString(k.Line)
		if err != nil {
			t.Fatal(err)
		}
		derive := func(info string) string { return hex.EncodeToString(hkdf1(key, "keyturn/1/"+info)) }
		want := vectorKEK{Line: k.Line, ID: derive("kek-id")[:16], Check: derive("kek-check")[:16]}
		for _, r := range k.Realms {
			r = vectorRealm{Realm: r.Realm, Check: derive("kek-realm:" + r.Realm)[:16], Wrap: derive("kek-wrap:" + r.Realm), Facts: derive("kek-facts:" + r.Realm),
				Head: derive("kek-head:" + r.Realm), Acks: derive("kek-acks:" + r.Realm), Log: derive("kek-log:" + r.Realm)}
			want.Realms = append(want.Realms, r)
		}
		if !reflect.DeepEqual(k, want) || len(k.Realms) != 2 {
			t.Errorf("KEK %+v, want %+v", k, want)
		}
	}
	for _, r := range v.Rings {
		v.readRing(t, r, r.ring(t))
	}
	for _, a := range v.Acks {
		v.readAck(t, a, unhex(t, a.Value))
	}
	for _, e := range v.Entries {
		v.readEntry(t, e, unhex(t, e.Value))
	}
	if got := v.Ends.digest(); got != v.Ends.Digest {
		t.Errorf("digest of ends %s, want %s", got, v.Ends.Digest)
	}
}

// readRing checks that fields hold the tenant keys, records, facts and head of r.
func (v *vectors) readRing(t *testing.T, r *vectorRing, fields map[string][]byte) {
	t.Helper()
	for _, k := range r.Keys {
		blob, id := fields["tk:"+k.ID], unhex(t, k.ID)
		header := slices.Concat([]byte("kt\x01K"), unhex(t, v.KEKs[k.Born].Check), v.name(t, k.KEK, r.Realm))
		if !bytes.Equal(blob[:len(header)], header) || len(blob) != len(header)+12+32+16+32 {
			t.Errorf("tenant key %x, want a header of %x", blob, header)
		}
		wrap := unhex(t, v.KEKs[k.KEK].realm(r.Realm).Wrap)
		key := unbox1(t, wrap, hkdf1(wrap, "keyturn/1/commit"), header, slices.Concat(id, str(r.Tenant)), blob)
		if hex.EncodeToString(key) != k.Key || hex.EncodeToString(hkdf1(key, "keyturn/1/commit")) != k.Commit {
			t.Errorf("tenant key %x, want %s", key, k.Key)
		}
	}
	for _, want := range r.Records {
		v.readRecord(t, r, want, fields["k:"+want.KID])
	}
	for _, want := range r.Accepts {
		v.readAccept(t, r, want, fields["v:"+want.KID])
	}
	for _, f := range r.Facts {
		blob := fields[f.field()]
		open := slices.Concat(f.start(), v.name(t, f.KEK, r.Realm))
		mac := hmac1(unhex(t, v.KEKs[f.KEK].realm(r.Realm).Facts), open, []byte(f.Kind), str(r.Tenant), str(f.KID))
		if !bytes.Equal(blob, slices.Concat(open, mac)) {
			t.Errorf("fact %+v: %x", f, blob)
		}
	}
	open := slices.Concat([]byte("kt\x01H"), u32(r.Head.Seq), u64(r.Head.Count), v.name(t, r.Head.KEK, r.Realm))
	mac := hmac1(unhex(t, v.KEKs[r.Head.KEK].realm(r.Realm).Head), open, str(r.Tenant))
	if !bytes.Equal(fields["head"], slices.Concat(open, mac)) {
		t.Errorf("head %+v: %x", r.Head, fields["head"])
	}
}

// readRecord checks that blob holds the record want of the ring r.
func (v *vectors) readRecord(t *testing.T, r *vectorRing, want vectorRecord, blob []byte) {
	t.Helper()
	size := int(binary.BigEndian.Uint16(blob[98:]))
	n := 98 + 2 + size
	got := vectorRecord{
		TenantKey: slices.IndexFunc(r.Keys, func(k vectorKey) bool { return k.ID == hex.EncodeToString(blob[90:98]) }),
		KID:       want.KID, SignedText: want.SignedText, SignedBytes: want.SignedBytes,
		Seq: binary.BigEndian.Uint32(blob[4:]), Created: binary.BigEndian.Uint64(blob[8:]),
		ActivateAt: binary.BigEndian.Uint64(blob[16:]), SignUntil: binary.BigEndian.Uint64(blob[24:]),
		Origin: map[byte]string{'g': "generated", 'i': "imported", 'l': "legacy"}[blob[32]], NoKID: blob[33]&1 != 0, Hold: blob[33]&2 != 0, Waits: blob[33]&4 != 0,
		Longest: u40(blob[81:]), Life: binary.BigEndian.Uint32(blob[86:]),
		Algorithm: algs[blob[34]], PolicyAlg: algs[blob[35]],
		Public: hex.EncodeToString(blob[100:n]), Nonce: hex.EncodeToString(blob[n : n+12]),
	}
	for i := range got.Durations {
		got.Durations[i] = u40(blob[36+5*i:])
	}
	key := r.Keys[got.TenantKey]
	got.Material = hex.EncodeToString(unbox1(t, unhex(t, key.Key), unhex(t, key.Commit), blob[:n], slices.Concat(str(r.Tenant), str(want.KID)), blob))
	if got != want || string(blob[:4]) != "kt\x01R" {
		t.Errorf("record %+v\nwant   %+v", got, want)
	}
}

// readAccept checks that blob holds the accepted key want of the ring r.
func (v *vectors) readAccept(t *testing.T, r *vectorRing, want vectorAccept, blob []byte) {
	t.Helper()
	n := 36 + int(binary.BigEndian.Uint16(blob[34:]))
	got := vectorAccept{
		TenantKey: slices.IndexFunc(r.Keys, func(k vectorKey) bool { return k.ID == hex.EncodeToString(blob[26:34]) }),
		KID:       want.KID, Created: binary.BigEndian.Uint64(blob[4:]), Until: binary.BigEndian.Uint64(blob[12:]),
		NoKID: blob[20]&1 != 0, Weak: blob[20]&2 != 0, Algorithm: algs[blob[21]], Life: binary.BigEndian.Uint32(blob[22:]),
		Public: hex.EncodeToString(blob[36:n]), Nonce: hex.EncodeToString(blob[n : n+12]),
	}
	key := r.Keys[got.TenantKey]
	got.Material = hex.EncodeToString(unbox1(t, unhex(t, key.Key), unhex(t, key.Commit), blob[:n], slices.Concat(str(r.Tenant), str(want.KID)), blob))
	if got != want || string(blob[:4]) != "kt\x01V" {
		t.Errorf("accepted key %+v\nwant         %+v", got, want)
	}
}

// readAck checks that blob is the acknowledgement a.
func (v *vectors) readAck(t *testing.T, a *vectorAck, blob []byte) {
	t.Helper()
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
	mac := hmac1(unhex(t, v.KEKs[a.KEKs[0]].realm(a.Realm).Acks), open, []byte{byte(a.Bucket >> 8), byte(a.Bucket)}, str(a.Instance))
	if want := slices.Concat(open, mac); !bytes.Equal(blob, want) {
		t.Errorf("acknowledgement %x, want %x", blob, want)
	}
}

// readEntry checks that blob is the field "mac" of the entry e.
func (v *vectors) readEntry(t *testing.T, e *vectorEntry, blob []byte) {
	t.Helper()
	open := slices.Concat([]byte("kt\x01L"), []byte{byte(len(e.Ends))})
	for _, f := range e.Ends {
		open = append(open, f.end()...)
	}
	open = append(open, v.name(t, e.KEK, e.Realm)...)
	mac := hmac1(unhex(t, v.KEKs[e.KEK].realm(e.Realm).Log), open, str(e.Op), str(e.Tenant), str(e.KID), str(e.Actor), str(e.Nonce), u32(e.Seq))
	if want := slices.Concat(open, mac); !bytes.Equal(blob, want) {
		t.Errorf("entry %x, want %x", blob, want)
	}
}

// digest returns the digest of the facts, which are sorted.
func (e vectorEnds) digest() string {
	h := sha256.New()
	for _, f := range e.Facts {
		h.Write(slices.Concat(str(f.Tenant), []byte(f.Kind), str(f.KID)))
		switch f.Kind {
		case "g":
			h.Write(u64(f.At))
		case "d":
			h.Write(u32(f.Life))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// TestVectors reads the same rings with the package.
func TestVectors(t *testing.T) {
	v := readVectors(t)
	for _, r := range v.Rings {
		keks := v.keks(t, r.Realm, 0, 1)
		opened, err := OpenRing(keks, r.Tenant, r.ring(t))
		if err != nil {
			t.Fatal(err)
		}
		if want := (Head{int(r.Head.Seq), r.Head.Count}); opened.Head != want || len(opened.Records) != len(r.Records) || len(opened.TenantKeys) != len(r.Keys) {
			t.Errorf("head %+v, want %+v; %d records, %d tenant keys", opened.Head, want, len(opened.Records), len(opened.TenantKeys))
		}
		for _, want := range r.Keys {
			got := opened.TenantKeys[want.ID]
			if got.ID != want.ID || got.KEK != keks.Names()[want.KEK] || got.Born != keks.Names()[want.Born].Check {
				t.Errorf("tenant key %+v, want %+v", got, want)
			}
		}
		for _, want := range r.Records {
			i := slices.IndexFunc(opened.Records, func(o OpenedRecord) bool { return o.KID == want.KID })
			if i < 0 {
				t.Errorf("no record %q", want.KID)
				continue
			}
			wantRecord(t, r, want, opened, i)
		}
		for i, want := range r.Accepts {
			wantAccept(t, r, want, opened, i)
		}
		if want := r.facts(); !opened.Facts.Equal(want) {
			t.Errorf("facts %v, want %v", opened.Facts, want)
		}
	}
}

// accept returns an accepted key of the ring as the package has it.
func (r *vectorRing) accept(want vectorAccept) ring.AcceptRecord {
	return ring.AcceptRecord{Tenant: r.Tenant, KID: want.KID, Algorithm: keystore.Algorithm(want.Algorithm), Created: ms(want.Created), Until: ms(want.Until),
		NoKID: want.NoKID, Weak: want.Weak, Life: int(want.Life)}
}

// wantAccept reports an error of the test unless the i-th accepted key of opened is want.
func wantAccept(t *testing.T, r *vectorRing, want vectorAccept, opened *OpenedRing, i int) {
	t.Helper()
	if len(opened.Accepts) != len(r.Accepts) {
		t.Errorf("%d accepted keys, want %d", len(opened.Accepts), len(r.Accepts))
		return
	}
	got := &opened.Accepts[i]
	h, _, err := readAcceptHeader(r.ring(t)["v:"+want.KID])
	if err != nil || got.AcceptRecord != r.accept(want) || hex.EncodeToString(h.public) != want.Public || got.TenantKey != r.Keys[want.TenantKey].ID {
		t.Errorf("accepted key %+v\nwant         %+v", got.AcceptRecord, r.accept(want))
	}
	if want.Algorithm != "HS256" {
		return
	}
	if mac := hmac1(unhex(t, want.Material), []byte("a text")); !got.Key.Verify([]byte("a text"), mac) {
		t.Errorf("the accepted key %q does not verify", want.KID)
	}
}

// u40 reads a duration.
func u40(b []byte) uint64 { return binary.BigEndian.Uint64(append([]byte{0, 0, 0}, b[:5]...)) }

func ms(n uint64) time.Time { return time.UnixMilli(int64(n)).UTC() }

// record returns a record of the ring as the package has it.
func (r *vectorRing) record(want vectorRecord) ring.Record {
	d := func(i int) time.Duration { return time.Duration(want.Durations[i]) * time.Millisecond }
	timing := ring.Policy{Algorithm: keystore.Algorithm(want.PolicyAlg), Every: d(0), Propagation: d(1), MaxTokenTTL: d(2), Leeway: d(3), ClockSkew: d(4),
		Freshness: d(5), Dwell: d(6), SignFor: d(7), ReaderStaleness: d(8)}
	return ring.Record{Tenant: r.Tenant, KID: want.KID, Seq: int(want.Seq), Algorithm: keystore.Algorithm(want.Algorithm), Created: ms(want.Created),
		ActivateAt: ms(want.ActivateAt), SignUntil: ms(want.SignUntil), Origin: ring.Origin(want.Origin), NoKID: want.NoKID, Hold: want.Hold, Waits: want.Waits,
		Longest: time.Duration(want.Longest) * time.Millisecond, Life: int(want.Life), Timing: timing}
}

// facts returns the facts of the ring as the package has them.
func (r *vectorRing) facts() (facts ring.Facts) {
	for _, f := range r.Facts {
		switch f.Kind {
		case "g":
			facts.Collect(int(f.Life), ms(f.At))
		case "d":
			facts.Kill(int(f.Life), ms(f.At))
		default:
			facts.Add(ring.FactKind(f.Kind[0]), f.KID, ms(f.At))
		}
	}
	return facts
}

// wantRecord reports an error of the test unless the i-th record of opened is want, of the ring r.
func wantRecord(t *testing.T, r *vectorRing, want vectorRecord, opened *OpenedRing, i int) {
	t.Helper()
	got := &opened.Records[i]
	h, _, err := readHeader(r.ring(t)["k:"+want.KID])
	if err != nil || got.Record != r.record(want) || hex.EncodeToString(h.public) != want.Public || got.TenantKey != r.Keys[want.TenantKey].ID {
		t.Errorf("record %+v\nwant   %+v", got.Record, r.record(want))
	}
	if err := got.Timing.Validate(); err != nil {
		t.Errorf("record %q: %v", want.KID, err)
	}
	if want.SignedText == "" {
		return
	}
	whole, err := OpenRecord(opened.TenantKeys, r.Tenant, want.KID, r.ring(t)["k:"+want.KID])
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signWith(whole, []byte(want.SignedText))
	if err != nil || hex.EncodeToString(sig) != want.SignedBytes || !whole.Key.Verify([]byte(want.SignedText), sig) {
		t.Errorf("record %q signs %x, %v, want %s", want.KID, sig, err, want.SignedBytes)
	}
}

// TestVectorsOfBuckets reads and writes acknowledgements, entries of the log and digests of ends
// with the package.
func TestVectorsOfBuckets(t *testing.T) {
	v := readVectors(t)
	for _, a := range v.Acks {
		keks := v.keks(t, a.Realm, a.KEKs...)
		want := Ack{Instance: a.Instance, Bucket: int(a.Bucket), PlaceID: a.PlaceID, PlaceNonce: a.Nonce, At: ms(a.At), KEKs: keks.Names(), Ends: [16]byte(unhex(t, a.Ends)), Run: a.Run}
		for _, applied := range a.Applied {
			want.Applied = append(want.Applied, Applied(applied))
		}
		for _, alg := range a.Verifies {
			want.Verifies = append(want.Verifies, keystore.Algorithm(alg))
		}
		if a.GoodSince > 0 {
			want.GoodSince = ms(a.GoodSince)
		}
		got, err := OpenAck(keks, a.Instance, int(a.Bucket), unhex(t, a.Value))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("acknowledgement %+v, %v\nwant %+v", got, err, want)
		}
		blob, err := SealAck(keks, want)
		if err != nil || hex.EncodeToString(blob) != a.Value {
			t.Errorf("acknowledgement sealed as %x, %v, want %s", blob, err, a.Value)
		}
	}
	for _, e := range v.Entries {
		keks := v.keks(t, e.Realm, 0, 1)
		entry := e.entry()
		want := entry
		for _, f := range e.Ends {
			want.Ends = append(want.Ends, EndFact{ring.FactKind(f.Kind[0]), f.KID, ms(f.At), int(f.Life)})
		}
		got, err := OpenEntry(keks, entry, unhex(t, e.Value))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("entry %+v, %v\nwant %+v", got, err, want)
		}
		blob, err := SealEntry(keks, keks.Names()[e.KEK], want)
		if err != nil || hex.EncodeToString(blob) != e.Value {
			t.Errorf("entry sealed as %x, %v, want %s", blob, err, e.Value)
		}
	}
	var ends []TenantEnd
	for _, e := range slices.Backward(v.Ends.Facts) {
		ends = append(ends, TenantEnd{e.Tenant, EndFact{ring.FactKind(e.Kind[0]), e.KID, ms(e.At), int(e.Life)}})
	}
	if got, none := EndsDigest(ends), EndsDigest(nil); hex.EncodeToString(got[:]) != v.Ends.Digest || hex.EncodeToString(none[:]) != v.Ends.None {
		t.Errorf("digests of ends %x, %x, want %s, %s", got, none, v.Ends.Digest, v.Ends.None)
	}
}

// entry returns the fields of the entry in the log.
func (e *vectorEntry) entry() Entry {
	return Entry{Op: ring.Op(e.Op), Tenant: e.Tenant, KID: e.KID, Seq: int(e.Seq), Actor: e.Actor, Nonce: e.Nonce}
}

func TestVectorsRefused(t *testing.T) {
	v := readVectors(t)
	for _, r := range v.Rings {
		for _, tt := range r.Refused {
			fields := r.ring(t)
			fields[tt.Field] = unhex(t, tt.Value)
			_, err := OpenRing(v.keks(t, r.Realm, 0, 1), r.Tenant, fields)
			bad := new(ring.UnreadableError)
			if !errors.As(err, &bad) {
				t.Errorf("%s: %v, want %q refused", tt.Name, err, tt.Field)
			}
			wantReason(t, tt, bad.Failed[tt.Field])
			if len(bad.Failed) > 1 && !strings.HasPrefix(tt.Field, "tk:") {
				t.Errorf("%s: %d fields refused: %v", tt.Name, len(bad.Failed), err)
			}
		}
	}
	for _, a := range v.Acks {
		for _, tt := range a.Refused {
			_, err := OpenAck(v.keks(t, a.Realm, 0, 1), tt.Field, int(a.Bucket), unhex(t, tt.Value))
			wantReason(t, tt, err)
		}
	}
	for _, e := range v.Entries {
		for _, tt := range e.Refused {
			entry := e.entry()
			entry.Tenant = tt.Field
			_, err := OpenEntry(v.keks(t, e.Realm, 0, 1), entry, unhex(t, tt.Value))
			wantReason(t, tt, err)
		}
	}
}

// TestVectorsAreCurrent: the file has what this test writes, and a ring that the package seals can
// be read by hand.
func TestVectorsAreCurrent(t *testing.T) {
	v := readVectors(t)
	if !reflect.DeepEqual(newVectors(t), v) {
		t.Error("the file is not what this test writes: -write-vectors")
	}
	for _, r := range v.Rings {
		keks := v.keks(t, r.Realm, 0, 1)
		names := keks.Names()
		resealed := make(map[string][]byte)
		put := func(field string, blob []byte, err error) {
			if err != nil {
				t.Fatal(err)
			}
			resealed[field] = blob
		}
		var keys []*TenantKey
		for i, k := range r.Keys {
			tk := makeTenantKey(k.ID, names[k.KEK], names[k.Born].Check, unhex(t, k.Key))
			blob, err := tk.wrap(keks.list[k.KEK], r.Tenant)
			put("tk:"+k.ID, blob, err)
			r.Keys[i].Nonce = hex.EncodeToString(blob[len(blob)-92:][:12])
			keys = append(keys, tk)
		}
		for i, rec := range r.Records {
			m := &Material{Algorithm: keystore.Algorithm(rec.Algorithm), KID: rec.KID, secret: func() []byte { return unhex(t, rec.Material) }}
			if rec.Public != "" {
				m.public = unhex(t, rec.Public)
			}
			blob := mustSeal(t, keys[rec.TenantKey], r.record(rec), m)
			put("k:"+rec.KID, blob, nil)
			n := len(blob) - len(unhex(t, rec.Material)) - boxOverhead
			r.Records[i].Nonce = hex.EncodeToString(blob[n : n+12])
		}
		for i, a := range r.Accepts {
			blob, err := SealAccept(keys[a.TenantKey], r.accept(a), a.key(t))
			put("v:"+a.KID, blob, err)
			n := len(blob) - len(unhex(t, a.Material)) - boxOverhead
			r.Accepts[i].Nonce = hex.EncodeToString(blob[n : n+12])
		}
		for _, f := range r.Facts {
			kind := ring.FactKind(f.Kind[0])
			blob, err := SealFact(keks, names[f.KEK], r.Tenant, kind, f.KID, ms(f.At))
			if isOfRing(kind) {
				blob, err = SealRingFact(keks, names[f.KEK], r.Tenant, kind, int(f.Life), ms(f.At))
			}
			put(f.field(), blob, err)
		}
		blob, err := SealHead(keks, names[r.Head.KEK], r.Tenant, Head{int(r.Head.Seq), r.Head.Count})
		put("head", blob, err)
		for field, blob := range resealed { // what has no nonce is byte for byte the same
			if sealed := isUnderTenantKey(field) || strings.HasPrefix(field, "tk:"); !sealed && !bytes.Equal(blob, r.ring(t)[field]) {
				t.Errorf("%q: %x, want %s", field, blob, r.Fields[field])
			}
		}
		v.readRing(t, r, resealed)
		if got := slices.Sorted(maps.Keys(resealed)); len(got)+1 != len(r.Fields) { // and p:
			t.Errorf("sealed %q", got)
		}
	}
}
