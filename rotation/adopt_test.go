package rotation_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// old is the key of programs that existed before the ring; their tokens have no kid, and live for 20
// seconds.
var old = rotation.Imported{NoKID: true, Algorithm: keystore.HS256, Key: []byte("the secret of the old programs !"), Longest: 20 * time.Second}

// adopt joins a member that makes the ring of acme with a key.
func adopt(t *testing.T, key rotation.Imported, opts rotation.AdoptOptions) (*member, rotation.Receipt) {
	t.Helper()
	m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", trusting)
	receipt, err := m.rotator.Adopt(t.Context(), "acme", key, fast, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m, receipt
}

// oldToken is a token of an old program.
func oldToken(t *testing.T) string {
	t.Helper()
	s, err := rotation.NewStaticSigner(keystore.ID{Tenant: "acme"}, old.Algorithm, old.Key, rotation.SignerConfig{TTL: old.Longest})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign(t.Context(), "acme", nil)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verdict says what m makes of a token, by its kid or by none, as a verifier does.
func (m *member) verdict(token string) string {
	m.t.Helper()
	keys, err := m.Lookup(keystore.ID{Tenant: "acme", KID: kidOf(m.t, token)}, keystore.HS256)
	switch {
	case errors.Is(err, keystore.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, keystore.ErrNotFound):
		return "not found"
	case err != nil:
		return err.Error()
	}
	for _, k := range keys {
		if k.Usable(time.Now()) && k.Verify([]byte(token[:strings.LastIndexByte(token, '.')]), sigOf(m.t, token)) {
			return "good"
		}
	}
	return "bad signature"
}

// A token of an old program is good from the import on, at every instance, until the receipts say. The
// ring signs as the old programs do until its own key takes over.
func TestAdoptedKeyVerifiesOldTokens(t *testing.T) {
	virtual(t, func(t *testing.T) {
		before := oldToken(t)
		m, receipt := adopt(t, old, rotation.AdoptOptions{Hold: true})
		defer m.leave()
		if receipt.Adopted == "" || receipt.Minted == "" || receipt.Minted == receipt.Adopted || !receipt.SignsFrom.IsZero() || !receipt.TokensUntil.IsZero() {
			t.Errorf("the import of a held key: %+v", receipt)
		}
		signed, err := m.signer.Sign(t.Context(), "acme", nil)
		if err != nil || kidOf(t, signed) != "" {
			t.Errorf("the ring signs %s, %v", signed, err)
		}
		time.Sleep(fast.HeardWithin() + time.Second)
		last := oldToken(t)
		for _, token := range []string{before, signed, last} {
			if got := m.verdict(token); got != "good" {
				t.Errorf("a token without a kid: %s", got)
			}
		}
		receipt, err = m.rotator.Rotate(t.Context(), "acme")
		if err != nil || receipt.TokensUntil.IsZero() {
			t.Fatalf("%+v, %v", receipt, err)
		}
		if signed, err = m.signer.Sign(t.Context(), "acme", nil); err != nil || kidOf(t, signed) != receipt.Promoted {
			t.Errorf("after the rotation the ring signs %s, %v", signed, err)
		}
		time.Sleep(time.Until(receipt.TokensUntil) - time.Millisecond)
		if got := m.verdict(last); got != "good" {
			t.Errorf("just before %v: %s", receipt.TokensUntil, got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := m.verdict(last); got != "not found" {
			t.Errorf("just after %v: %s", receipt.TokensUntil, got)
		}
		if lived := old.Longest + fast.Leeway; receipt.TokensUntil.Sub(receipt.CommittedAt) < lived {
			t.Errorf("accepted until %v, the last token was made at %v and lives for %v", receipt.TokensUntil, receipt.CommittedAt, lived)
		}
	})
}

// A receipt of a rotation on a date says when the old programs must stop, and until when their tokens
// are good.
func TestAdoptReceipt(t *testing.T) {
	virtual(t, func(t *testing.T) {
		date := time.Now().Add(9 * time.Second)
		named := old
		named.NoKID, named.KID = false, "2026-11"
		m, receipt := adopt(t, named, rotation.AdoptOptions{RotateAt: date})
		defer m.leave()
		if !receipt.SignsFrom.Equal(date) || !receipt.TokensUntil.Equal(date.Add(old.Longest+fast.Leeway)) || receipt.Adopted != "2026-11" {
			t.Errorf("%+v", receipt)
		}
		if token, err := m.signer.Sign(t.Context(), "acme", nil); err != nil || kidOf(t, token) != "2026-11" || m.verdict(token) != "good" {
			t.Errorf("%s, %v", token, err)
		}
		if got := m.verdict(oldToken(t)); got != "not found" {
			t.Errorf("a token without a kid: %s", got)
		}
	})
}

// An import is refused where it would be unsafe, and says why.
func TestAdoptRefuses(t *testing.T) {
	virtual(t, func(t *testing.T) {
		m, _ := adopt(t, old, rotation.AdoptOptions{Hold: true})
		defer m.leave()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			edit func(*rotation.Imported)
			want string
		}{
			"a ring":            {func(*rotation.Imported) {}, "it has a ring already"},
			"no life":           {func(k *rotation.Imported) { k.Longest = 0 }, "Imported.Longest"},
			"a short secret":    {func(k *rotation.Imported) { k.Key = []byte("short") }, "32"},
			"no key":            {func(k *rotation.Imported) { k.Key = nil }, "is not a private key"},
			"a public key":      {func(k *rotation.Imported) { k.Algorithm, k.Key = keystore.ES256, key.Public() }, "is not a private key"},
			"another algorithm": {func(k *rotation.Imported) { k.Algorithm = keystore.ES256 }, "is not a private key"},
			"a long kid":        {func(k *rotation.Imported) { k.KID, k.NoKID = strings.Repeat("k", 257), false }, "a kid of 257 bytes"},
		} {
			edited := old
			tt.edit(&edited)
			if _, err := m.rotator.Adopt(t.Context(), "acme", edited, fast, rotation.AdoptOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "the secret of") {
				t.Errorf("%s: %v, want %q", name, err, tt.want)
			}
		}
	})
}

// A change to another algorithm is refused as long as a live instance does not list it: when it is
// set, when the key is imported, and when the key is made to sign. Force overrides it.
func TestAlgorithmIsVerifiedEverywhere(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		lists := func(algs ...keystore.Algorithm) *member {
			return join(t, f.cluster, "b", trusting, func(c *rotation.Config) { c.Verifies = algs })
		}
		b := lists(keystore.HS256)
		defer func() { b.leave() }() // of the one that is there then
		es := fast
		es.Algorithm, es.ReaderStaleness = keystore.ES256, time.Second
		setPolicy := func(opts ...rotation.Option) error {
			return errorOf(f.rotator.SetPolicy(t.Context(), "acme", es, opts...))
		}
		time.Sleep(4 * time.Second)
		if refused := wantRefused(t, setPolicy()); !strings.Contains(refused.Reason, "no tokens of ES256: b;") {
			t.Errorf("it says %q", refused.Reason)
		}
		acks, err := f.rotator.Acks(t.Context(), rotation.Receipt{Tenant: "acme"})
		if err != nil || len(acks) != 2 || len(acks[1].Verifies) != 1 || acks[1].Verifies[0] != keystore.HS256 || acks[0].Verifies != nil {
			t.Errorf("%+v, %v", acks, err)
		}
		if err := errorOf(f.rotator.SetPolicy(t.Context(), "acme", fast)); err != nil {
			t.Errorf("a policy of the same algorithm: %v", err)
		}
		time.Sleep(4 * time.Second)
		if err := setPolicy(rotation.Force); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Second) // the keys before it have taken effect by now
		b.leave()
		b = lists(keystore.HS256, keystore.ES256)
		time.Sleep(time.Second)
		if _, err := f.rotator.Rotate(t.Context(), "acme"); err != nil && !errors.Is(err, ring.ErrRefused) || err != nil && strings.Contains(err.Error(), "ES256") {
			t.Errorf("once every instance lists it: %v", err)
		}
	})
}

// The algorithm is asked again when the key is made to sign: an instance may have started since.
func TestAlgorithmIsAskedAgain(t *testing.T) {
	virtual(t, func(t *testing.T) {
		m, _ := adopt(t, old, rotation.AdoptOptions{Hold: true})
		defer m.leave()
		es := fast
		es.Algorithm, es.ReaderStaleness = keystore.ES256, time.Second
		time.Sleep(4 * time.Second)
		if _, err := m.rotator.SetPolicy(t.Context(), "acme", es); err != nil {
			t.Fatal(err)
		}
		late, err := rotation.Open(t.Context(), m.conn, rotation.Config{KEKs: testKEK, Tenants: []string{"acme"}, Instance: "late", Poll: fastPoll, Deadline: fastDeadline,
			TrustFirstRead: true, Verifies: []keystore.Algorithm{keystore.HS256}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := errorOf(m.rotator.Rotate(t.Context(), "acme")); !errors.Is(err, ring.ErrRefused) || !strings.Contains(err.Error(), "no tokens of ES256: late;") {
			t.Errorf("Rotate: %v", err)
		}
		if err := late.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if _, err := m.rotator.Rotate(t.Context(), "acme"); err != nil {
			t.Errorf("once that instance has ended: %v", err)
		}
	})
}
