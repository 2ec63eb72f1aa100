package keystore_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

var (
	weakID  = keystore.ID{Tenant: "acme", KID: "old"}
	weakEnd = time.Date(2026, 12, 24, 3, 0, 0, 0, time.UTC)
)

func mustWeak(t *testing.T, secret []byte, until time.Time) *keystore.Key {
	t.Helper()
	k, err := keystore.NewWeakSecret(weakID, keystore.HS256, secret, until)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewWeakSecret(t *testing.T) {
	for _, tt := range []struct {
		name   string
		alg    keystore.Algorithm
		secret []byte
		want   string // a part of the error; "" for no error
	}{
		{"16 bytes", keystore.HS256, bytes.Repeat([]byte("s"), 16), ""},
		{"16 bytes for HS512", keystore.HS512, bytes.Repeat([]byte("s"), 16), ""},
		{"as long as the hash", keystore.HS256, bytes.Repeat([]byte("s"), 32), ""},
		{"15 bytes", keystore.HS256, bytes.Repeat([]byte("s"), 15), "15 bytes, want at least 16"},
		{"all zero", keystore.HS256, make([]byte, 16), "all zero"},
		{"a public key", keystore.HS256, []byte("-----BEGIN PUBLIC KEY-----"), "must never serve as a secret"},
		{"an algorithm with public keys", keystore.ES256, bytes.Repeat([]byte("s"), 16), "use NewPublic"},
	} {
		_, err := keystore.NewWeakSecret(weakID, tt.alg, tt.secret, weakEnd)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

// TestWeakSecretLives90Days: a weak key is usable for at most 90 days (and an hour for clocks that
// differ), whatever date it is given, and whatever its store sets.
func TestWeakSecretLives90Days(t *testing.T) {
	k := mustWeak(t, bytes.Repeat([]byte("s"), 16), weakEnd)
	for _, tt := range []struct {
		at   time.Time
		want bool
	}{
		{weakEnd.AddDate(-1, 0, 0), false},
		{weakEnd.Add(-91 * 24 * time.Hour), false},
		{weakEnd.Add(-90 * 24 * time.Hour), true},
		{weakEnd.Add(-1), true},
		{weakEnd, false},
	} {
		if got := k.Usable(tt.at); got != tt.want {
			t.Errorf("usable at %v: %v", tt.at, got)
		}
	}
	k.SetUntil(weakEnd.AddDate(1, 0, 0))
	if k.Usable(weakEnd) {
		t.Error("SetUntil moved the end of a weak secret to a later time")
	}
	k.SetUntil(weakEnd.Add(-time.Hour))
	if k.Usable(weakEnd.Add(-time.Hour)) || !k.Usable(weakEnd.Add(-2*time.Hour)) {
		t.Error("SetUntil did not move the end of a weak secret to an earlier time")
	}
}

// TestWeakSecretsEqual: a later date is another key, so that a store that is given it takes it over.
func TestWeakSecretsEqual(t *testing.T) {
	secret := bytes.Repeat([]byte("s"), 16)
	a := mustWeak(t, secret, weakEnd)
	if !a.Equal(mustWeak(t, secret, weakEnd)) {
		t.Error("two weak keys of one secret and end are not equal")
	}
	if a.Equal(mustWeak(t, secret, weakEnd.Add(time.Hour))) {
		t.Error("two weak keys with different ends are equal")
	}
	s, err := keystore.NewStatic(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(mustWeak(t, secret, weakEnd.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	keys, err := s.Lookup(weakID, keystore.HS256)
	if err != nil || len(keys) != 1 || !keys[0].Usable(weakEnd) || a.Usable(weakEnd.Add(-time.Hour)) {
		t.Errorf("after Replace with a later end: %v, %v", keys, err)
	}
}
