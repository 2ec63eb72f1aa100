package verifier_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// A modelled token, and what the model knows about it.
type modelled struct {
	tok              *verifier.Token
	tenant, jti, sub string
	issued, exp      time.Time
	jtiRevoked       bool
}

// A model of a RevocationList remembers everything.
type model struct {
	list     *verifier.RevocationList
	tokens   []*modelled
	subjects map[string]time.Time // by tenant and sub
	tenants  map[string]time.Time
}

const (
	modelTTL    = time.Hour
	modelLeeway = 5 * time.Minute
)

// TestRevocationListAgainstModel makes random revocations. As long as a token lives, the list
// says of it what a list says that forgets nothing.
func TestRevocationListAgainstModel(t *testing.T) {
	full, seeds := 0, 30
	if raceEnabled {
		seeds = 10 // make test has all of them without the race detector
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := newModel(t, r)
			for range 120 {
				if !m.step(r) {
					full++
				}
				m.check(t, seed)
				time.Sleep(time.Duration(r.Int64N(int64(5 * time.Minute))))
			}
		})
	}
	if full < seeds || full > seeds*60 {
		t.Errorf("the list was full %d times of %d", full, seeds*120)
	}
}

func newModel(t *testing.T, r *rand.Rand) *model {
	t.Helper()
	list, err := verifier.NewRevocationListWith(verifier.RevocationListConfig{Tokens: 12, Subjects: 8, Tenants: 2, MaxTokenTTL: modelTTL})
	if err != nil {
		t.Fatal(err)
	}
	m := &model{list: list, subjects: map[string]time.Time{}, tenants: map[string]time.Time{}}
	start := time.Now()
	for i := range 60 {
		k := &modelled{tenant: []string{"a", "b"}[i%2], jti: fmt.Sprint(i), sub: fmt.Sprint("s", r.IntN(12))}
		k.issued = start.Add(time.Duration(r.IntN(5*3600)) * time.Second)
		k.exp = k.issued.Add(time.Duration(1+r.IntN(int(modelTTL/time.Second))) * time.Second)
		rules := tenant(t, k.tenant, "https://"+k.tenant, nil)
		v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{rules}, Now: func() time.Time { return k.issued }})
		if err != nil {
			t.Fatal(err)
		}
		k.tok, err = v.Verify(t.Context(), signWith(secretOf(k.tenant), goodHeader, fmt.Sprintf(
			`{"iss":"https://%s","sub":%q,"jti":%q,"iat":%d,"exp":%d}`, k.tenant, k.sub, k.jti, k.issued.Unix(), k.exp.Unix())))
		if err != nil {
			t.Fatal(err)
		}
		m.tokens = append(m.tokens, k)
	}
	return m
}

// exists reports whether an issuer whose clock is ahead may have issued the token by now.
func (k *modelled) exists() bool { return k.issued.Before(time.Now().Add(modelLeeway)) }

// step does one random thing, and reports whether the list had room for it.
func (m *model) step(r *rand.Rand) bool {
	k := m.tokens[r.IntN(len(m.tokens))]
	before := time.Now().Add(-time.Duration(r.Int64N(int64(time.Hour))) / time.Duration(1+r.IntN(20)))
	up := before.Add(time.Second - 1).Truncate(time.Second)
	at := k.tenant + "/" + k.sub
	switch n := r.IntN(20); {
	case n < 11:
		if !k.exists() {
			return true
		}
		if m.list.RevokeToken(k.tenant, k.jti, k.exp) != nil {
			return false
		}
		k.jtiRevoked = true
	case n < 16:
		if m.list.RevokeSubject(k.tenant, k.sub, before) != nil {
			return false
		}
		if up.After(m.subjects[at]) {
			m.subjects[at] = up
		}
	case n < 18:
		if m.list.RevokeTenant(k.tenant, before) != nil {
			return false
		}
		if up.After(m.tenants[k.tenant]) {
			m.tenants[k.tenant] = up
		}
	case n < 19:
		m.list.RemoveToken(k.tenant, k.jti)
		k.jtiRevoked = false
	default:
		m.list.RemoveSubject(k.tenant, k.sub)
		delete(m.subjects, at)
	}
	return true
}

func (m *model) check(t *testing.T, seed uint64) {
	t.Helper()
	for _, k := range m.tokens {
		if now := time.Now(); !k.exists() || now.After(k.exp.Add(modelLeeway)) {
			continue
		}
		want := k.jtiRevoked || k.issued.Before(m.subjects[k.tenant+"/"+k.sub]) || k.issued.Before(m.tenants[k.tenant])
		if got, err := m.list.Revoked(k.tok); got != want || err != nil {
			t.Fatalf("seed %d: %v issued %v, now %v: revoked %v, %v, want %v", seed, k.tok, k.issued, time.Now(), got, err, want)
		}
	}
}
