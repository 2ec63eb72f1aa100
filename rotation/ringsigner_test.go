package rotation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

// newSigner returns a Signer of f's rings.
func (f *fleet) newSigner(cfg rotation.SignerConfig) *rotation.Signer {
	f.t.Helper()
	s, err := rotation.NewSigner(f.Keyring, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// A token does not outlive its key, which is kept for MaxTokenTTL and no longer.
func TestTokenLivesForMaxTokenTTLAtMost(t *testing.T) {
	virtual(t, func(t *testing.T) {
		f := newFleet(t, fast)
		defer f.leave()
		exp := func(s string) any { return json.RawMessage(`{"exp":` + s + `}`) }
		most := time.Now().Add(fast.MaxTokenTTL).Unix() // now is a whole second
		for _, tt := range []struct {
			name    string
			ttl     time.Duration
			claims  any
			refused bool
		}{
			{"its own exp", 0, map[string]any{"exp": most}, false},
			{"a second more", 0, map[string]any{"exp": most + 1}, true},
			{"half a second less", 0, exp(fmt.Sprint(most-1, ".5")), false},
			{"a fraction more", 0, exp(fmt.Sprint(most, ".001")), true},
			{"a fraction more, in a map", 0, map[string]any{"exp": float64(most) + 0.5}, true},
			{"more in another notation", 0, exp(fmt.Sprintf("%de-1", 10*most+1)), true},
			{"as late as can be", 0, exp("9007199254740991"), true},
			{"long gone", 0, map[string]any{"exp": 0}, false},
			{"the signer's TTL", fast.MaxTokenTTL, nil, false},
			{"a signer's TTL that is more", fast.MaxTokenTTL + time.Second, nil, true},
			{"a signer's TTL that is more, and a sooner exp", time.Hour, map[string]any{"exp": most}, false},
		} {
			token, err := f.newSigner(rotation.SignerConfig{TTL: tt.ttl}).Sign(t.Context(), "acme", tt.claims)
			if refused := errors.Is(err, ring.ErrRefused); refused != tt.refused || refused != (err != nil) || refused != (token == "") {
				t.Errorf("%s: %q, %v", tt.name, token, err)
			}
		}
	})
}

// Between whole seconds exp is rounded down.
func TestDefaultTTL(t *testing.T) {
	for _, tt := range []struct{ most, ttl, want time.Duration }{
		{3 * time.Second, 0, 3 * time.Second},
		{15 * time.Minute, 0, 15 * time.Minute},
		{time.Hour, 0, 15 * time.Minute},
		{time.Hour, time.Minute, time.Minute},
		{time.Hour, time.Hour, time.Hour},
	} {
		virtual(t, func(t *testing.T) {
			policy := fast
			policy.MaxTokenTTL = tt.most
			f := newFleet(t, policy)
			defer f.leave()
			for _, fraction := range []time.Duration{0, 999 * time.Millisecond} {
				time.Sleep(fraction)
				token, err := f.newSigner(rotation.SignerConfig{TTL: tt.ttl}).Sign(t.Context(), "acme", nil)
				if err != nil {
					t.Fatal(err)
				}
				_, claims, _, _ := split(t, token)
				now := time.Now().Unix()
				if claims["iat"] != float64(now) || claims["exp"] != float64(now+int64(tt.want/time.Second)) {
					t.Errorf("MaxTokenTTL %v, TTL %v: at %d %v", tt.most, tt.ttl, now, claims)
				}
			}
		})
	}
}

// What a signer puts into tokens is of their tenant.
func TestTokensOfRingSayWhoseTheyAre(t *testing.T) {
	virtual(t, func(t *testing.T) {
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		f := &fleet{t: t, cluster: cluster, member: join(t, cluster, "a", trusting, of("acme", "globex"))}
		defer f.leave()
		cfg := rotation.SignerConfig{
			Issuer: func(tenant string) string { return map[string]string{"acme": "https://acme.example"}[tenant] },
			Audience: func(tenant string) []string {
				return map[string][]string{"acme": {"api"}, "globex": {"one", "two"}}[tenant]
			},
		}
		jwt, at := f.newSigner(cfg), cfg
		at.Type = "at+jwt"
		for tenant, want := range map[string]string{"acme": "https://acme.example api", "globex": "<nil> [one two]"} {
			if _, err := f.rotator.Create(t.Context(), tenant, fast); err != nil {
				t.Fatal(err)
			}
			s, _ := f.Tenant(tenant)
			for typ, signer := range map[string]*rotation.Signer{"JWT": jwt, "at+jwt": f.newSigner(at)} {
				token, err := signer.Sign(t.Context(), tenant, nil)
				if err != nil {
					t.Fatal(err)
				}
				header, claims, _, _ := split(t, token)
				if header["typ"] != typ || header["kid"] != s.Ring.Keys[0].KID || header["alg"] != "HS256" || len(header) != 3 {
					t.Errorf("%s: the header is %v", tenant, header)
				}
				if got := fmt.Sprint(claims["iss"], " ", claims["aud"]); got != want {
					t.Errorf("iss and aud of %s are %s, want %s", tenant, got, want)
				}
			}
		}
	})
}

// That nobody signs is no fault of who asks: it must not be taken for a key that does
// not exist.
func TestFencedAndNoSignerAreNoErrorsOfCaller(t *testing.T) {
	for _, tt := range []struct {
		name string
		stop func(f *fleet) *member
		want error
	}{
		{"out of step", func(f *fleet) *member {
			f.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
			time.Sleep(fast.SignFor + fastPoll)
			f.conn.SetFaults(rotationtest.Faults{})
			return f.member
		}, rotation.ErrFenced},
		{"in doubt", func(f *fleet) *member { return join(f.t, f.cluster, "b") }, rotation.ErrFenced},
		{"revoked", func(f *fleet) *member {
			if err := errorOf(f.rotator.Revoke(f.t.Context(), "acme", f.kid(1), rotation.Force)); err != nil {
				f.t.Fatal(err)
			}
			return f.member
		}, rotation.ErrNoSigner},
		{"at its end", func(f *fleet) *member {
			time.Sleep(4 * fast.Every)
			return f.member
		}, rotation.ErrNoSigner},
		{"no ring", func(f *fleet) *member {
			f.cluster.Wipe()
			return join(f.t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "b", trusting)
		}, rotation.ErrNoSigner},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				f := newFleet(t, fast)
				m := tt.stop(f)
				defer f.leave()
				if m != f.member {
					defer m.leave()
				}
				err := m.signs()
				for _, e := range []error{rotation.ErrFenced, rotation.ErrNoSigner, ring.ErrRefused, keystore.ErrNotFound} {
					if is := errors.Is(err, e); is != (e == tt.want) {
						t.Errorf("%v: is it %q? %v", err, e, is)
					}
				}
			})
		})
	}
	for _, sentinel := range []error{rotation.ErrFenced, rotation.ErrNoSigner} {
		for _, e := range []error{keystore.ErrNotFound, keystore.ErrUnavailable} {
			if errors.Is(sentinel, e) {
				t.Errorf("%v is %v", sentinel, e)
			}
		}
	}
}

// What cannot make a token is refused at once.
func TestNewSignerRefuses(t *testing.T) {
	if s, err := rotation.NewSigner(nil, rotation.SignerConfig{}); err == nil || s != nil {
		t.Error("no keyring")
	}
	for _, ttl := range []time.Duration{-1, time.Second - 1} {
		if s, err := rotation.NewSigner(new(rotation.Keyring), rotation.SignerConfig{TTL: ttl}); err == nil || s != nil {
			t.Errorf("TTL %v: taken", ttl)
		}
	}
	m := join(t, rotationtest.NewCluster(rotationtest.ClusterConfig{}), "a", trusting)
	defer m.leave()
	if _, err := rotation.NewSigner(m.Keyring, rotation.SignerConfig{TTL: time.Second}); err != nil {
		t.Error(err)
	}
}
