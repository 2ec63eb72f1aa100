package verifier_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

func TestCached(t *testing.T) {
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix)})
	if err != nil {
		t.Fatal(err)
	}
	token := sign(goodHeader, with(`"jti":"7","scope":"read"`))
	first, err1 := v.Verify(t.Context(), token)
	second, err2 := v.Verify(t.Context(), token)
	hinted, err3 := v.VerifyTenant(t.Context(), "acme", token)
	again, err4 := v.VerifyTenant(t.Context(), "acme", token)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if first.Cached() || !second.Cached() || hinted.Cached() || !again.Cached() {
		t.Errorf("cached: %v %v %v %v", first.Cached(), second.Cached(), hinted.Cached(), again.Cached())
	}
	if second.Subject() != "ann" || second.ID() != "7" || second.KeyID() != "1" || !second.HasScope("read") || second.Tenant() != "acme" ||
		second.Algorithm() != keystore.HS256 || !second.Expires().Equal(first.Expires()) || !second.IssuedAt().Equal(first.IssuedAt()) {
		t.Errorf("a cached token tells something else: %v", second)
	}
	if s := v.CacheStats(); s.Hits != 2 || s.Misses != 2 || s.Entries != 2 || s.Bytes < 2*200 {
		t.Errorf("%+v", s)
	}
	off, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), CacheTTL: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if tok, err := off.Verify(t.Context(), token); err != nil || tok.Cached() {
			t.Errorf("without a cache: %v, %v", tok.Cached(), err)
		}
	}
}

func TestCacheTTL(t *testing.T) {
	now := time.Unix(nowUnix, 0)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, CacheTTL: time.Minute, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	token := sign(goodHeader, goodPayload)
	for _, step := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {time.Minute - 1, true}, {1, false}, {time.Second, true}} {
		now = now.Add(step.after)
		if tok, err := v.Verify(t.Context(), token); err != nil || tok.Cached() != step.want {
			t.Errorf("%v later: cached %v, %v", step.after, tok.Cached(), err)
		}
	}
}

// TestCacheAndTime moves the clock over each edge of the life of a cached token.
func TestCacheAndTime(t *testing.T) {
	short := acme(t)
	short.MaxAge = time.Hour
	short.Leeway = 10 * time.Second
	w := newTwin(t, short)
	token := sign(goodHeader, `{"iss":"https://acme.example","aud":"api","iat":1799999000,"nbf":1800000100,"exp":1800000200}`)
	w.verify("not yet", token, verifier.ErrNotYetValid)
	w.at(1800000090)
	w.hit("from nbf less leeway", token)
	w.at(1800000089.9)
	w.verify("the clock steps back", token, verifier.ErrNotYetValid)
	w.at(1800000209.9)
	w.hit("until exp and leeway", token)
	w.at(1800000210)
	w.verify("expired while cached", token, verifier.ErrExpired)
	w.at(1800000100)
	w.verify("the clock steps back to when it was good", token, nil)
	w.at(1799998989)
	w.verify("the clock steps back below iat", token, verifier.ErrNotYetValid)

	aged := sign(goodHeader, `{"iss":"https://acme.example","aud":"api","iat":1800000000,"exp":1900000000}`)
	w.at(1800003500)
	w.hit("below MaxAge", aged)
	w.at(1800003610)
	w.verify("as old as MaxAge and leeway", aged, nil)
	w.at(1800003610.001)
	w.verify("MaxAge passes while cached", aged, verifier.ErrTooOld)

	for _, exp := range []string{"9000000000", "9007199254740991", "1e15"} {
		w.at(nowUnix)
		far := sign(goodHeader, with(`"exp":` + exp)[:len(with(`"exp":`+exp))-1]+`,"x":`+exp+`}`)
		w.hit("exp "+exp, far)
		w.at(8999999999)
		w.verify("exp "+exp+", long after: too old", far, verifier.ErrTooOld)
	}
	w.at(nowUnix)
	w.verify("exp 2^53", sign(goodHeader, with(`"exp":9007199254740992`)), verifier.ErrClaim)
}

func TestCacheAndFarClock(t *testing.T) {
	w := newTwin(t, acme(t))
	token := sign(goodHeader, with(`"exp":9007199254740991`))
	for _, unix := range []int64{1 << 40, 1 << 50, 1<<53 - 2} {
		w.now = time.Unix(unix, 0)
		w.verify(fmt.Sprint("at ", unix), token, nil)
	}
	w.now = time.Unix(1<<53-1, 0)
	w.verify("at its end", token, verifier.ErrExpired)
}

func TestCacheAndKeys(t *testing.T) {
	store := static(t, key(t, "acme", "1", secret), key(t, "acme", "2", secretOf("2")))
	r := acme(t)
	r.Keys = store
	r.AllowNoExpiry = true
	w := newTwin(t, r)
	one, two := sign(goodHeader, goodPayload), signWith(secretOf("2"), `{"alg":"HS256","kid":"2"}`, goodPayload)
	noKID := sign(`{"alg":"HS256"}`, goodPayload)
	noExp := sign(goodHeader, without("exp"))
	replace := func(keys ...*keystore.Key) {
		t.Helper()
		if err := store.Replace(keys...); err != nil {
			t.Fatal(err)
		}
	}
	for _, token := range []string{one, two, noKID, noExp} {
		w.hit("at first", token)
	}
	replace(key(t, "acme", "1", secret), key(t, "acme", "2", secretOf("2")))
	for _, token := range []string{one, two, noKID, noExp} {
		w.hit("the same keys again", token)
	}
	replace(key(t, "acme", "1", secretOf("new")), key(t, "acme", "2", secretOf("2")))
	w.verify("key replaced under its kid", one, verifier.ErrSignature)
	w.verify("key replaced, no kid", noKID, verifier.ErrSignature)
	w.verify("key replaced, no exp", noExp, verifier.ErrSignature)
	w.hit("the other", two)
	replace(key(t, "acme", "2", secretOf("2")))
	w.verify("key gone", one, verifier.ErrUnknownKey)
	replace(key(t, "acme", "1", secret), key(t, "acme", "2", secretOf("2")))
	w.hit("key back", one)

	w.hit("no kid", noKID)
	nine := []*keystore.Key{key(t, "acme", "1", secret)}
	for _, kid := range strings.Split("23456789", "") {
		nine = append(nine, key(t, "acme", kid, secretOf(kid)))
	}
	replace(nine...)
	w.verify("too many keys to offer to a token without kid", noKID, verifier.ErrUnknownKey)
	w.hit("one with a kid", one)
	replace(key(t, "acme", "1", secret), key(t, "acme", "2", secretOf("2")))

	ends := key(t, "acme", "1", secret)
	ends.SetUntil(w.now.Add(time.Second))
	replace(ends)
	w.hit("the key will end", one)
	w.hit("the key will end, no exp", noExp)
	w.now = w.now.Add(time.Second)
	w.verify("the key has ended", one, verifier.ErrUnknownKey)
	w.verify("the key has ended, no exp", noExp, verifier.ErrUnknownKey)
	w.now = w.now.Add(-time.Nanosecond)
	w.verify("the clock steps back before its end", one, nil)
}

func TestCacheAndTenants(t *testing.T) {
	a := tenant(t, "a", "https://a", nil)
	w := newTwin(t, a, tenant(t, "b", "https://b", nil))
	token, other := tokenOf("a", `"iss":"https://a","aud":"x"`), tokenOf("b", `"iss":"https://b"`)
	w.hit("at first", token)
	w.hit("with a hint", token, "a")
	w.hit("the other", other)
	w.verify("an empty hint", token, verifier.ErrUnknownTenant, "")
	w.verify("another's hint", token, verifier.ErrIssuer, "b")
	w.verify("an unknown hint", token, verifier.ErrUnknownTenant, "c")

	w.do(func(v *verifier.Verifier) error { return v.Suspend("a") })
	w.verify("suspended", token, verifier.ErrSuspended)
	w.verify("suspended, with a hint", token, verifier.ErrSuspended, "a")
	w.do(func(v *verifier.Verifier) error { return v.Resume("a") })
	w.hit("resumed", token)
	w.hit("resumed, with a hint", token, "a")

	a.AnyAudience, a.Audiences = false, []string{"y"}
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("audiences tightened", token, verifier.ErrAudience)
	w.verify("audiences tightened, with a hint", token, verifier.ErrAudience, "a")
	a.Audiences = []string{"x"}
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.hit("audiences set", token)
	a.Algorithms = []keystore.Algorithm{keystore.HS512}
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("algorithms tightened", token, verifier.ErrAlgorithm)
	a.Algorithms = []keystore.Algorithm{keystore.HS256}
	a.Check = func(*verifier.Token) error { return errOdd }
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.verify("a check that says no", token, verifier.ErrClaim)
	a.Check = nil
	w.do(func(v *verifier.Verifier) error { return v.Put(a) })
	w.hit("put back", token)
	w.hit("the other all along", other)

	w.do(func(v *verifier.Verifier) error { return v.Remove("a") })
	w.verify("removed: the other is alone, and its key decides", token, verifier.ErrSignature)
	w.verify("removed, with a hint", token, verifier.ErrUnknownTenant, "a")
	w.verify("the other is alone", other, nil)
	w.do(func(v *verifier.Verifier) error { return v.Remove("b") })
	w.verify("nobody left", other, verifier.ErrUnknownTenant)
}

// TestCacheAndWhoseToken changes other tenants so that a token without a hint reaches
// another tenant than before.
func TestCacheAndWhoseToken(t *testing.T) {
	claim := func(r *verifier.Tenant) { r.TenantClaim = "tid" }
	w := newTwin(t, tenant(t, "any", "", nil))
	nameless := tokenOf("any", ``)
	w.hit("alone", nameless)
	w.do(func(v *verifier.Verifier) error { return v.Put(tenant(t, "b", "https://b", nil)) })
	w.verify("not alone any more", nameless, verifier.ErrUnknownTenant)
	w.hit("reached by hint", nameless, "any")
	w.do(func(v *verifier.Verifier) error { return v.Remove("b") })
	w.hit("alone again", nameless)
	w.hit("by hint still", nameless, "any")

	w = newTwin(t, tenant(t, "s1", "https://s", claim), tenant(t, "x", "https://x", nil))
	shared, x := tokenOf("s1", `"iss":"https://s","tid":"s1"`), tokenOf("x", `"iss":"https://x"`)
	w.hit("its issuer alone", shared)
	w.hit("x", x)
	w.do(func(v *verifier.Verifier) error { return v.Put(tenant(t, "s2", "https://s", claim)) })
	w.verify("the issuer is shared", shared, verifier.ErrUnknownTenant)
	w.hit("reached by hint", shared, "s1")
	w.verify("the other's hint", shared, verifier.ErrSignature, "s2")
	before := w.on.CacheStats().Hits
	w.verifyN("x is not touched", x, nil, 1)
	if w.on.CacheStats().Hits != before+1 {
		t.Error("a tenant that nothing changed for lost its tokens")
	}
	w.do(func(v *verifier.Verifier) error { return v.Remove("s2") })
	w.hit("its issuer alone again", shared)
}

// TestCacheAndEqualKIDs has two tenants with the same kid, in both orders.
func TestCacheAndEqualKIDs(t *testing.T) {
	a, b := tokenOf("a", `"iss":"https://a"`), tokenOf("b", `"iss":"https://b"`)
	forged := tokenOf("a", `"iss":"https://b"`)
	for _, order := range [][]string{{a, b, forged}, {forged, b, a}, {b, forged, a}} {
		w := newTwin(t, tenant(t, "a", "https://a", nil), tenant(t, "b", "https://b", nil))
		for range 2 {
			for _, token := range order {
				var want error
				if token == forged {
					want = verifier.ErrSignature
				}
				w.verify("equal kids", token, want)
			}
		}
	}
}

// An unsureStore counts its lookups, and is never unsure.
type unsureStore struct {
	keystore.KeyStore
	lookups *int
}

func (s unsureStore) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	*s.lookups++
	return s.KeyStore.Lookup(id, alg)
}

func (unsureStore) Unsure(keystore.ID, keystore.Algorithm) error { return nil }

// An aloneStore answers for no other.
type aloneStore struct{ unsureStore }

func (aloneStore) Alone() bool { return true }

// TestCacheAndSeveralStores: a hit looks its key up again in a store that answers for others, since one of these may
// have revoked the kid of a key that another one has. A store of one source is not asked.
func TestCacheAndSeveralStores(t *testing.T) {
	token := tokenOf("a", `"iss":"https://a"`)
	for alone, want := range map[bool]int{false: 5, true: 0} {
		lookups := 0
		w := newTwin(t, tenant(t, "a", "https://a", func(r *verifier.Tenant) {
			s := unsureStore{r.Keys, &lookups}
			if r.Keys = s; alone {
				r.Keys = aloneStore{s}
			}
		}))
		w.hit("first", token)
		first := lookups
		for range 5 {
			if _, err := w.on.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		if n := lookups - first; n != want {
			t.Errorf("alone %t: %d lookups for five hits, want %d", alone, n, want)
		}
	}
}

func TestCacheAndLeeways(t *testing.T) {
	wide := tenant(t, "wide", "https://wide", func(r *verifier.Tenant) { r.Leeway = 60 * time.Second })
	w := newTwin(t, wide, tenant(t, "strict", "https://strict", nil))
	lax, strict := tokenOf("wide", `"iss":"https://wide"`), tokenOf("strict", `"iss":"https://strict"`)
	w.at(1800003599)
	w.hit("before exp", lax)
	w.hit("before exp", strict)
	w.at(1800003600)
	w.verify("at exp, with leeway", lax, nil)
	w.verify("at exp, without", strict, verifier.ErrExpired)
	w.at(1800003660)
	w.verify("leeway over", lax, verifier.ErrExpired)
}

// TestCacheAndForgeries: a text that resembles a cached token gets no hit.
func TestCacheAndForgeries(t *testing.T) {
	w := newTwin(t, acme(t))
	one, two := sign(goodHeader, with(`"sub":"ann"`)), sign(goodHeader, with(`"sub":"bob"`))
	w.hit("ann", one)
	w.hit("bob", two)
	cut := strings.LastIndex(one, ".")
	w.verify("the signature of another token", one[:cut]+two[cut:], verifier.ErrSignature)
	w.verify("the claims of another token", two[:cut]+one[cut:], verifier.ErrSignature)
	for _, spelling := range []string{one + "=", one + "\n", " " + one, one[:cut] + "\n" + one[cut:], one + ".", one[:len(one)-1], strings.ToUpper(one), one[1:]} {
		w.verify("another spelling", spelling, verifier.ErrInvalid)
	}
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", one[len(one)-1])
	w.verify("bits that belong to no byte", one[:len(one)-1]+"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1:][:1], verifier.ErrMalformed)
	w.hit("ann, after all that", one)
}

func TestCacheAndRevocations(t *testing.T) {
	testCacheAndRevocations(t, verifier.NewRevocationList(100))
}

func testCacheAndRevocations(t *testing.T, list revoker) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keystore.NewPublic(keystore.ID{Tenant: "acme", KID: "1"}, keystore.ES256, &private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	signES := func(claims string) (token, malleated string) {
		signed := b64([]byte(`{"alg":"ES256","kid":"1"}`)) + "." + b64([]byte(claims))
		digest := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		raw := func(s *big.Int) string {
			return signed + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
		}
		return raw(s), raw(new(big.Int).Sub(elliptic.P256().Params().N, s))
	}
	rules := acme(t)
	rules.Keys, rules.Algorithms = static(t, k), []keystore.Algorithm{keystore.ES256}
	w := newTwinWith(t, list, rules)
	one, malleated := signES(with(`"jti":"one"`))
	two, _ := signES(with(`"jti":"two"`))
	old, _ := signES(strings.Replace(with(`"sub":"bob"`), "1799999940", "1799990000", 1))
	undated, _ := signES(without("iat"))
	for _, token := range []string{one, malleated, two, old, undated} {
		w.hit("at first", token)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(w.revocations.RevokeToken("acme", "one", time.Unix(1800003600, 0)))
	must(w.revocations.RevokeToken("globex", "two", time.Unix(1800003600, 0)))
	w.verify("jti revoked", one, verifier.ErrRevoked)
	w.verify("jti revoked, under a malleated signature", malleated, verifier.ErrRevoked)
	w.hit("another's jti revoked", two)

	must(w.revocations.RevokeSubject("acme", "bob", time.Unix(1799990000, 0)))
	w.hit("issued at the watermark", old)
	must(w.revocations.RevokeSubject("acme", "bob", time.Unix(1799990001, 0)))
	w.verify("issued before the watermark", old, verifier.ErrRevoked)
	must(w.revocations.RevokeSubject("acme", "bob", time.Unix(1, 0)))
	w.verify("a watermark does not go back", old, verifier.ErrRevoked)
	w.hit("another subject", two)

	must(w.revocations.RevokeTenant("acme", time.Time{}))
	w.verify("not dated, before any time", undated, verifier.ErrRevoked)
	must(w.revocations.RevokeTenant("acme", time.Unix(1, 0)))
	w.hit("issued after the tenant's watermark", two)
	w.verify("not dated", undated, verifier.ErrRevoked)
	must(w.revocations.RevokeTenant("acme", time.Unix(1799999941, 0)))
	w.verify("issued before the tenant's watermark", two, verifier.ErrRevoked)
}

// TestCacheAndUnsureRevocations: a hit is no hit if the revocations cannot tell.
func TestCacheAndUnsureRevocations(t *testing.T) {
	list := &revocations{}
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Now: at(nowUnix), Revocations: list})
	if err != nil {
		t.Fatal(err)
	}
	token := sign(goodHeader, goodPayload)
	for _, state := range []struct {
		list revocations
		want error
	}{{revocations{}, nil}, {revocations{}, nil}, {revocations{err: errOdd}, verifier.ErrUnavailable}, {revocations{revoked: true}, verifier.ErrRevoked}, {revocations{}, nil}} {
		*list = state.list
		tok, err := v.Verify(t.Context(), token)
		check(t, fmt.Sprint(state), tok, err, state.want)
	}
}

// TestCachedClaimsAreNotShared: if one request changes the claims that it got, no other
// request sees the change.
func TestCachedClaimsAreNotShared(t *testing.T) {
	v := newVerifier(t, acme(t))
	token := sign(goodHeader, with(`"roles":["admin"],"scope":"read"`))
	for range 3 {
		tok, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		m, err := verifier.Claims[map[string]any](tok)
		if err != nil || fmt.Sprint(m["roles"]) != "[admin]" || m["sub"] != "ann" || !tok.HasScope("read") {
			t.Fatalf("%v, %v", m, err)
		}
		m["roles"].([]any)[0], m["sub"] = "root", "eve"
		tok.Scopes()[0], tok.Audience()[0] = "x", "x"
	}
}

// TestBadTokensLeaveNoTrace: 100 000 bad tokens take no memory, and the good entries
// stay.
func TestBadTokensLeaveNoTrace(t *testing.T) {
	v := newVerifier(t, acme(t))
	good := make([]string, 100)
	for i := range good {
		good[i] = sign(goodHeader, with(fmt.Sprintf(`"n":%d`, i)))
		v.Verify(t.Context(), good[i])
	}
	before := heap()
	n := 25_000
	if raceEnabled {
		n = 5_000 // make test has all of them without the race detector
	}
	for i := range n {
		v.Verify(t.Context(), sign(goodHeader, fmt.Sprintf(`{"exp":1,"n":%d}`, i)))
		v.Verify(t.Context(), fmt.Sprint("garbage", i))
		v.Verify(t.Context(), signWith(secretOf("x"), goodHeader, with(fmt.Sprintf(`"n":%d`, i))))
		v.Verify(t.Context(), sign(fmt.Sprintf(`{"alg":"HS256","kid":"x%d"}`, i), goodPayload))
	}
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if s := v.CacheStats(); s.Entries != len(good) || s.Evictions != 0 {
		t.Errorf("%+v", s)
	}
	for _, token := range good {
		if tok, err := v.Verify(t.Context(), token); err != nil || !tok.Cached() {
			t.Fatalf("a good one is gone: %v", err)
		}
	}
}
