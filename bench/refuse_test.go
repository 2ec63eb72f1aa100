package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// ofGood verifies a bad token and a good one in turn, uncached, and reports how the time of the
// bad one relates to that of the good one, as "of-good". It takes the quickest of many batches of
// each, since other work on the machine only adds time.
func ofGood(b *testing.B, v *verifier.Verifier, bad, good string, want error) {
	b.Helper()
	batch := 1
	quickest := map[string]time.Duration{}
	measure := func(name, token string, want error) {
		start := time.Now()
		for range batch {
			if _, err := v.Verify(b.Context(), token); !errors.Is(err, want) || (want == nil) != (err == nil) {
				b.Fatalf("%s: %v, want %v", name, err, want)
			}
		}
		if d := time.Since(start); quickest[name] == 0 || d < quickest[name] {
			quickest[name] = d
		}
	}
	for range 100 {
		measure("good", good, nil)
	}
	batch = max(1, int(50*time.Microsecond/quickest["good"]))
	clear(quickest)
	for b.Loop() {
		measure("good", good, nil)
		measure("bad", bad, want)
	}
	b.ReportMetric(float64(quickest["good"].Nanoseconds())/float64(batch), "good-ns")
	b.ReportMetric(float64(quickest["bad"].Nanoseconds())/float64(batch), "bad-ns")
	b.ReportMetric(quickest["bad"].Seconds()/quickest["good"].Seconds(), "of-good")
}

// BenchmarkRefuse compares each refusal with a good token of the same size. A refusal that costs
// more than 1.05 of a good token is a lever for an attacker. HS256 has the cheapest good token.
func BenchmarkRefuse(b *testing.B) {
	p := newPair(b, keystore.HS256)
	v := p.verifier(b)
	good := p.sign(b, claims())
	for _, tt := range p.refused(b, good) {
		b.Run("why="+tt.why, func(b *testing.B) { ofGood(b, v, tt.token, good, tt.want) })
	}
}

type refusal struct {
	why, token string
	want       error
}

// refused returns a token for each rule that refuses one, of about the size of the good one.
func (p pair) refused(b *testing.B, good string) []refusal {
	b.Helper()
	with := func(name string, value any) string {
		c := maps.Clone(claims())
		c[name] = value
		return p.sign(b, c)
	}
	misspelt := claims()
	misspelt["Scope"] = misspelt["scope"]
	delete(misspelt, "scope")
	parts := strings.Split(good, ".")
	header := func(text string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(text)) + "." + parts[1] + "." + parts[2]
	}
	flipped := []byte(good)
	flipped[len(flipped)-10] ^= 1
	return []refusal{
		{"too-large", strings.Repeat("A", 16<<10), verifier.ErrTooLarge},
		{"one-part", strings.Repeat("A", len(good)), verifier.ErrMalformed},
		{"not-base64", good[:len(good)-20] + strings.Repeat("!", 20), verifier.ErrMalformed},
		{"payload-not-json", parts[0] + "." + parts[1][:len(parts[1])-len(parts[1])%4-4] + "." + parts[2], verifier.ErrMalformed},
		{"critical", header(`{"alg":"` + string(p.key.Algorithm()) + `","kid":"2026-11-a","crit":["x"]}`), verifier.ErrCritical},
		{"algorithm", header(`{"alg":"HS512","kid":"2026-11-a","typ":"JWT"}`), verifier.ErrAlgorithm},
		{"unknown-key", header(`{"alg":"` + string(p.key.Algorithm()) + `","kid":"2026-11-b","typ":"JWT"}`), verifier.ErrUnknownKey},
		{"forged", string(flipped), verifier.ErrSignature},
		{"forged-with-a-new-header", header(`{"kid":"2026-11-a","typ":"JWT","alg":"` + string(p.key.Algorithm()) + `"}`), verifier.ErrSignature},
		{"expired", with("exp", 1767225601), verifier.ErrExpired},
		{"audience", with("aud", "https://other.acme.example"), verifier.ErrAudience},
		{"spelling", p.sign(b, misspelt), verifier.ErrClaim},
	}
}

// BenchmarkNoKID compares tokens without kid, of a tenant with two keys of ES512, with a good one
// that the last key signed. Claims that can never pass cost no check of a signature; plausible
// claims cost one check for each key.
func BenchmarkNoKID(b *testing.B) {
	const n = keystore.MaxCandidates / 4 // each costs 4
	var keys []*keystore.Key
	var last *ecdsa.PrivateKey
	for i := range n {
		var err error
		last, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		check(b, err)
		k, err := keystore.NewPublic(keystore.ID{Tenant: id.Tenant, KID: fmt.Sprint(i)}, keystore.ES512, &last.PublicKey)
		check(b, err)
		keys = append(keys, k)
	}
	store, err := keystore.NewStatic(keys...)
	check(b, err)
	v, err := verifier.New(verifier.Config{CacheTTL: -1, Tenants: []verifier.Tenant{{ID: id.Tenant, Keys: store,
		Algorithms: []keystore.Algorithm{keystore.ES512}, Issuer: issuer, Audiences: []string{audience}}}})
	check(b, err)
	signer, err := rotation.NewStaticSigner(keystore.ID{Tenant: id.Tenant}, keystore.ES512, last, rotation.SignerConfig{
		Issuer:   func(string) string { return issuer },
		Audience: func(string) []string { return []string{audience} },
	})
	check(b, err)
	sign := func(claims map[string]any) string {
		token, err := signer.Sign(context.Background(), id.Tenant, claims)
		check(b, err)
		return token
	}
	good := sign(claims())
	expired := claims()
	expired["exp"] = 1767225601
	forged := []byte(good)
	forged[len(forged)-10] ^= 1
	b.Run("claims=impossible", func(b *testing.B) { ofGood(b, v, sign(expired), good, verifier.ErrExpired) })
	b.Run("claims=plausible", func(b *testing.B) { ofGood(b, v, string(forged), good, verifier.ErrSignature) })
}
