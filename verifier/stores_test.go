package verifier_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// TestRevokedKey: a kid that the store knows to be revoked has a reason of its own, and is an
// unknown key too. The store is not asked for it, and no claim changes the reason.
func TestRevokedKey(t *testing.T) {
	for _, token := range []string{sign(goodHeader, goodPayload), sign(goodHeader, with(`"exp":1`))} {
		r, store := acme(t), &scripted{lookupErr: fmt.Errorf("ring: %w", keystore.ErrRevoked)}
		r.Keys = store
		tok, err := newVerifier(t, r).Verify(t.Context(), token)
		check(t, "revoked", tok, err, verifier.ErrRevokedKey)
		check(t, "revoked", tok, err, verifier.ErrUnknownKey)
		if e := new(verifier.Error); !errors.As(err, &e) || e.Reason != "revoked_key" || store.asked != 0 {
			t.Errorf("reason %q, asked %d times", e.Reason, store.asked)
		}
	}
	if errors.Is(verifier.ErrUnknownKey, verifier.ErrRevokedKey) || errors.Is(verifier.ErrSignature, verifier.ErrUnknownKey) {
		t.Error("another error is ErrRevokedKey, or ErrUnknownKey")
	}
	r := acme(t)
	r.Keys = &scripted{lookupErr: errNotFound, refresh: fmt.Errorf("ring: %w", keystore.ErrRevoked), after: nil}
	tok, err := newVerifier(t, r).Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "only Refresh knows", tok, err, verifier.ErrUnknownKey)
	r.Keys = &scripted{lookupErr: fmt.Errorf("%w: %w", keystore.ErrRevoked, keystore.ErrUnavailable)}
	tok, err = newVerifier(t, r).Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "revoked in one store, unavailable in another", tok, err, verifier.ErrUnavailable)
}

// TestUnknownKeyDetail: what a store says of a missing key reaches the operator.
func TestUnknownKeyDetail(t *testing.T) {
	const why = `kid "1" is in the set, but was skipped: RSA of 1024 bits`
	for _, token := range []string{sign(goodHeader, goodPayload), sign(goodHeader, with(`"exp":1`))} {
		r := acme(t)
		r.Keys = &scripted{lookupErr: fmt.Errorf("jwks: %w", keystore.NotFound(why)), refresh: errNotFound}
		_, err := newVerifier(t, r).Verify(t.Context(), token)
		if !errors.Is(err, verifier.ErrUnknownKey) || !strings.HasSuffix(err.Error(), ": unknown key: "+why) {
			t.Errorf("error %v", err)
		}
	}
}

// TestJoinedStores: no verdict of a Join is more certain than its stores are.
func TestJoinedStores(t *testing.T) {
	other := key(t, "acme", "1", secretOf("other"))
	good := key(t, "acme", "1", secret)
	token, forged := sign(goodHeader, goodPayload), signWith(secretOf("x"), goodHeader, goodPayload)
	expired := signWith(secretOf("x"), goodHeader, with(`"exp":1`))
	for _, tt := range []struct {
		name   string
		second scripted
		token  string
		want   error
		asked  int
	}{
		{"the other has it", scripted{before: list(good)}, token, nil, 0},
		{"none has it", scripted{lookupErr: errNotFound}, token, verifier.ErrSignature, 0},
		{"the other cannot tell", scripted{lookupErr: errUnavailable, refresh: errUnavailable}, token, verifier.ErrUnavailable, 1},
		{"the other learns it", scripted{lookupErr: errUnavailable, after: list(good)}, token, nil, 1},
		{"the other learns another", scripted{lookupErr: errUnavailable, after: list(good)}, forged, verifier.ErrSignature, 1},
		{"the other cannot tell, and the token is expired", scripted{lookupErr: errUnavailable}, expired, verifier.ErrSignature, 0},
		{"the other cannot tell, and this one has it", scripted{lookupErr: errUnavailable}, signWith(secretOf("other"), goodHeader, goodPayload), nil, 0},
		{"revoked in the other", scripted{lookupErr: keystore.ErrRevoked}, signWith(secretOf("other"), goodHeader, goodPayload), verifier.ErrRevokedKey, 0},
	} {
		r := acme(t)
		r.Keys = keystore.Join(&scripted{before: list(other), after: list(other)}, &tt.second)
		tok, err := newVerifier(t, r).Verify(t.Context(), tt.token)
		check(t, tt.name, tok, err, tt.want)
		if tt.second.asked != tt.asked {
			t.Errorf("%s: asked %d times, want %d", tt.name, tt.second.asked, tt.asked)
		}
	}
}

// TestJoinedKeysThatEnded: a key of one store whose end has come says nothing of the store that
// cannot tell, which may have the key that signed the token.
func TestJoinedKeysThatEnded(t *testing.T) {
	good := key(t, "acme", "1", secret)
	for _, header := range []string{goodHeader, `{"alg":"HS256"}`} {
		for _, tt := range []struct {
			name   string
			second scripted
			want   error
		}{
			{"the other cannot tell", scripted{lookupErr: errUnavailable, refresh: errUnavailable}, verifier.ErrUnavailable},
			{"the other cannot tell, and its budget is spent", scripted{lookupErr: errUnavailable, refresh: errNotFound}, verifier.ErrUnavailable},
			{"the other learns it", scripted{lookupErr: errUnavailable, after: list(good)}, nil},
			{"the other lacks it", scripted{lookupErr: errNotFound, refresh: errNotFound}, verifier.ErrUnknownKey},
		} {
			ended := key(t, "acme", "1", secretOf("old"))
			ended.SetUntil(time.Unix(nowUnix, 0))
			r := acme(t)
			r.Keys = keystore.Join(static(t, ended), &tt.second)
			tok, err := newVerifier(t, r).Verify(t.Context(), sign(header, goodPayload))
			check(t, tt.name+" "+header, tok, err, tt.want)
		}
	}
}

// TestJoinedJoins: a Join among the stores of a Join is as unsure as its own stores are.
func TestJoinedJoins(t *testing.T) {
	other := key(t, "acme", "1", secretOf("other"))
	r := acme(t)
	r.Keys = keystore.Join(keystore.Join(static(t, other), &scripted{lookupErr: errUnavailable, refresh: errUnavailable}))
	tok, err := newVerifier(t, r).Verify(t.Context(), sign(goodHeader, goodPayload))
	check(t, "a joined Join", tok, err, verifier.ErrUnavailable)
}

// TestJoinedStoresAreCached: a revocation in one store ends cached tokens of a copy in another.
func TestJoinedStoresAreCached(t *testing.T) {
	ring := &scripted{lookupErr: errNotFound}
	r := acme(t)
	r.Keys = keystore.Join(ring, static(t, key(t, "acme", "1", secret)))
	w := newTwin(t, r)
	token := sign(goodHeader, goodPayload)
	w.hit("at first", token)
	ring.lookupErr = keystore.ErrRevoked
	w.verify("revoked", token, verifier.ErrRevokedKey)
}

// noHMAC is a store that can never have a secret.
type noHMAC struct{ *keystore.Static }

func (noHMAC) CanServe(tenant string, alg keystore.Algorithm) bool {
	return tenant == "acme" && !alg.Symmetric()
}

// TestAlgorithmsThatCannotBeServed: New and Put refuse them by name.
func TestAlgorithmsThatCannotBeServed(t *testing.T) {
	r := acme(t)
	r.Keys, r.MixedFamilies = noHMAC{static(t)}, true
	v := newVerifier(t)
	for _, tt := range []struct {
		algs []keystore.Algorithm
		bad  string
	}{
		{[]keystore.Algorithm{keystore.HS256}, "HS256"},
		{[]keystore.Algorithm{keystore.RS256, keystore.HS384}, "HS384"},
		{[]keystore.Algorithm{keystore.RS256, keystore.Ed25519}, ""},
	} {
		r.Algorithms = tt.algs
		_, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{r}})
		for _, err := range []error{err, v.Put(r)} {
			if (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), "Algorithms holds "+tt.bad+", and its key store can never") {
				t.Errorf("%v: %v", tt.algs, err)
			}
		}
	}
}

// TestEd25519HasTwoNames: a key of one name verifies tokens of the other, if the tenant lists the
// token's name.
func TestEd25519HasTwoNames(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []keystore.Algorithm{keystore.EdDSA, keystore.Ed25519}
	for _, ofKey := range names {
		for _, kid := range []string{"", `,"kid":"1"`} {
			for i, ofToken := range names {
				k, err := keystore.NewPublic(keystore.ID{Tenant: "acme", KID: "1"}, ofKey, pub)
				if err != nil {
					t.Fatal(err)
				}
				r := acme(t)
				r.Keys, r.Algorithms = static(t, k), names[i:i+1]
				w := newTwin(t, r)
				tokenOf := func(alg keystore.Algorithm) string {
					signed := b64([]byte(`{"alg":"`+string(alg)+`"`+kid+`}`)) + "." + b64([]byte(goodPayload))
					return signed + "." + b64(ed25519.Sign(priv, []byte(signed)))
				}
				w.hit(fmt.Sprint(ofKey, ofToken), tokenOf(ofToken))
				w.verify("not listed", tokenOf(names[1-i]), verifier.ErrAlgorithm)
				if tok, err := w.on.Verify(t.Context(), tokenOf(ofToken)); err != nil || tok.Algorithm() != ofToken {
					t.Errorf("Algorithm = %v, %v, want %s", tok, err, ofToken)
				}
			}
		}
	}
}

// TestKeysOfOneKIDHaveABound: rubbish that names a kid which several keys share costs no more than
// the bound.
func TestKeysOfOneKIDHaveABound(t *testing.T) {
	var keys []*keystore.Key
	for i := range keystore.MaxCandidates {
		keys = append(keys, key(t, "acme", "1", secretOf(fmt.Sprint(i))))
	}
	store := &scripted{before: keys}
	r := acme(t)
	r.Keys = onlyLookup{store}
	v := newVerifier(t, r)
	checks := v.CountChecks()
	rubbish := signWith(secretOf("x"), goodHeader, goodPayload)
	tok, err := v.Verify(t.Context(), rubbish)
	check(t, "eight", tok, err, verifier.ErrSignature)
	if n := checks.Load(); n != keystore.MaxCandidates {
		t.Errorf("%d checks", n)
	}
	store.before = append(keys, key(t, "acme", "1", secretOf("ninth")))
	tok, err = v.Verify(t.Context(), rubbish)
	check(t, "nine", tok, err, verifier.ErrUnknownKey)
	if n := checks.Load(); n != keystore.MaxCandidates || !strings.Contains(err.Error(), "9 keys share the kid \"1\", which costs 9 checks, and at most 8 are allowed") {
		t.Errorf("%d checks, %v", n, err)
	}
}
