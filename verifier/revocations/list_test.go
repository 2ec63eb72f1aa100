package revocations

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier"
)

// TestRevocationsReachFleet: what one list revokes, another refuses at the nudge: a token, a session, a
// subject and a tenant, and nothing else.
func TestRevocationsReachFleet(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster, issuer := rotationtest.NewCluster(rotationtest.ClusterConfig{}), newIssuer(t, "acme", "globex")
		a, b := open(t, cluster.Connect("a"), "a"), open(t, cluster.Connect("b"), "b")
		ready(t, a, b)
		v := issuer.verifier(b)
		tokens := map[string]string{
			"token":   issuer.token("acme", map[string]any{"jti": "1", "sub": "ann", "sid": "s1"}),
			"session": issuer.token("acme", map[string]any{"jti": "2", "sub": "bob", "sid": "s2"}),
			"subject": issuer.token("acme", map[string]any{"jti": "3", "sub": "eve", "sid": "s3"}),
			"tenant":  issuer.token("globex", map[string]any{"jti": "1", "sub": "ann", "sid": "s1"}),
			"none":    issuer.token("acme", map[string]any{"jti": "4", "sub": "dan", "sid": "s4"}),
		}
		now := time.Now()
		for _, step := range []struct {
			what   string
			revoke func() (Receipt, error)
		}{
			{"", func() (Receipt, error) { return Receipt{}, nil }},
			{"token", func() (Receipt, error) { return a.RevokeToken(t.Context(), "acme", "1", now.Add(time.Hour)) }},
			{"session", func() (Receipt, error) { return a.RevokeSession(t.Context(), "acme", "s2", time.Time{}) }},
			{"subject", func() (Receipt, error) { return a.RevokeSubject(t.Context(), "acme", "eve", now.Add(time.Second)) }},
			{"tenant", func() (Receipt, error) { return a.RevokeTenant(t.Context(), "globex", now.Add(time.Second)) }},
		} {
			receipt, err := step.revoke()
			if err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			delete(tokens, "")
			if step.what != "" && (string(receipt.Kind) != step.what || receipt.Committed.IsZero() || receipt.Known) {
				t.Errorf("the receipt is %+v", receipt)
			}
			time.Sleep(100 * time.Millisecond)
			for what, token := range tokens {
				_, err := v.Verify(t.Context(), token)
				switch {
				case what == step.what && !errors.Is(err, verifier.ErrRevoked):
					t.Errorf("the %s that was revoked: %v", what, err)
				case what != step.what && err != nil:
					t.Errorf("after the %s, the %s: %v", step.what, what, err)
				}
			}
			delete(tokens, step.what)
		}
		if a.Len() != 4 || b.Len() != 4 {
			t.Errorf("the lists hold %d and %d entries, want 4", a.Len(), b.Len())
		}
	})
}
