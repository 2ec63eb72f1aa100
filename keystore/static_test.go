package keystore_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/keystoretest"
)

func TestStaticContract(t *testing.T) {
	runContract(t, func(s *keystore.Static) keystore.KeyStore { return s })
}

func TestJoinContract(t *testing.T) {
	runContract(t, func(s *keystore.Static) keystore.KeyStore {
		return keystore.Join(static(t, hs256(t, "globex", "k1", "other")), s)
	})
}

// runContract checks the store that wrap makes of a Static.
func runContract(t *testing.T, wrap func(*keystore.Static) keystore.KeyStore) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Subject {
		store := static(t)
		seeds := make(map[keystore.ID]string) // as in a file
		load := func(t *testing.T) {
			t.Helper()
			var keys []*keystore.Key
			for id, seed := range seeds {
				keys = append(keys, hs256(t, id.Tenant, id.KID, seed))
			}
			if err := store.Replace(keys...); err != nil {
				t.Fatal(err)
			}
		}
		added := 0
		return keystoretest.Subject{
			Store:  wrap(store),
			Tenant: "acme",
			Add: func(t *testing.T) keystoretest.Signing {
				added++
				id := keystore.ID{Tenant: "acme", KID: fmt.Sprint("k", added)}
				seed := fmt.Sprint("seed ", added)
				seeds[id] = seed
				load(t)
				return keystoretest.Signing{ID: id, Algorithm: keystore.HS256, Sign: func(msg []byte) []byte {
					mac := hmac.New(sha256.New, []byte(seed + strings.Repeat(".", 32))[:32])
					mac.Write(msg)
					return mac.Sum(nil)
				}}
			},
			Reload: load,
			Remove: func(t *testing.T, id keystore.ID) {
				delete(seeds, id)
				load(t)
			},
		}
	})
}

func TestLookupIsExact(t *testing.T) {
	a, g := hs256(t, "acme", "1", "a"), hs256(t, "globex", "1", "g")
	s := static(t, a, g)
	found(t, s, "acme", "1", a)
	found(t, s, "globex", "1", g)
	for _, id := range []keystore.ID{{}, {Tenant: "acme", KID: "2"}, {Tenant: "Acme", KID: "1"}, {Tenant: "acme", KID: "1 "}, {KID: "1"}, {Tenant: "acme/1"}} {
		found(t, s, id.Tenant, id.KID)
	}
	for _, alg := range []keystore.Algorithm{keystore.HS384, keystore.RS256, "", "none", "hs256"} {
		if keys, err := s.Lookup(a.ID(), alg); keys != nil || !errors.Is(err, keystore.ErrNotFound) {
			t.Errorf("Lookup(%v, %q) = %v, %v", a.ID(), alg, keys, err)
		}
	}
}

func TestStaticTellsAlgorithmsApart(t *testing.T) {
	rs := publicKey(keystore.RS256, &rsaKey().PublicKey)(t, acme1)
	ed := publicKey(keystore.EdDSA, ed25519Key().Public())(t, acme1)
	s := static(t, rs, ed)
	for _, k := range []*keystore.Key{rs, ed} {
		for _, kid := range []string{"1", ""} {
			keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: kid}, k.Algorithm())
			if err != nil || !slices.Equal(keys, []*keystore.Key{k}) {
				t.Errorf("Lookup of kid %q with %s = %v, %v", kid, k.Algorithm(), keys, err)
			}
		}
	}
}

func TestReplaceKeepsEqualKeys(t *testing.T) {
	stays, goes := hs256(t, "acme", "1", "a"), hs256(t, "acme", "2", "b")
	s := static(t, stays, goes)
	again, comes := hs256(t, "acme", "1", "a"), hs256(t, "acme", "3", "c")
	if err := s.Replace(comes, again); err != nil {
		t.Fatal(err)
	}
	found(t, s, "acme", "1", stays)
	found(t, s, "acme", "2")
	found(t, s, "acme", "3", comes)
	usable(t, true, stays, comes)
	usable(t, false, goes)
	if goes.Verify(nil, nil) || goes.Equal(hs256(t, "acme", "2", "b")) {
		t.Error("a key that went still has its material")
	}
}

func TestReplaceWithdrawsNewMaterialUnderOldName(t *testing.T) {
	before, after := hs256(t, "acme", "1", "a"), hs256(t, "acme", "1", "b")
	s := static(t, before)
	if err := s.Replace(after); err != nil {
		t.Fatal(err)
	}
	found(t, s, "acme", "1", after)
	usable(t, false, before)
}

func TestReplaceMovesEnd(t *testing.T) {
	held := hs256(t, "acme", "1", "a")
	s := static(t, held)
	for _, tt := range []struct {
		end  time.Time
		want bool
	}{
		{noon.Add(time.Minute), true},
		{noon.Add(-time.Minute), false},
		{noon.Add(time.Hour), true}, // later again: the key was not withdrawn
		{noon, false},
	} {
		next := hs256(t, "acme", "1", "a")
		next.SetUntil(tt.end)
		if err := s.Replace(next); err != nil {
			t.Fatal(err)
		}
		found(t, s, "acme", "1", held)
		usable(t, tt.want, held)
	}
	if err := s.Replace(hs256(t, "acme", "1", "a")); err != nil {
		t.Fatal(err)
	}
	usable(t, true, held) // a new key without an end removes the old end
}

func TestReplaceWithHeldKeys(t *testing.T) {
	k := hs256(t, "acme", "1", "a")
	k.SetUntil(noon.Add(time.Minute))
	s := static(t, k)
	for range 2 {
		if err := s.Replace(k, k, hs256(t, "acme", "1", "a")); err != nil {
			t.Fatal(err)
		}
		found(t, s, "acme", "1", k)
	}
}

func TestKeyTwiceCountsOnce(t *testing.T) {
	k := hs256(t, "acme", "1", "a")
	keys := []*keystore.Key{k, k, k, k, k, hs256(t, "acme", "1", "a")}
	s := static(t, keys...)
	found(t, s, "acme", "1", k)
	found(t, s, "acme", "", k)
}

func TestReplaceWithNothing(t *testing.T) {
	k := hs256(t, "acme", "1", "a")
	s := static(t, k)
	if err := s.Replace(); err != nil {
		t.Fatal(err)
	}
	found(t, s, "acme", "1")
	found(t, s, "acme", "")
	usable(t, false, k)
}

func TestOverlap(t *testing.T) {
	var keys []*keystore.Key
	for _, seed := range []string{"a", "b", "c", "d"} {
		keys = append(keys, hs256(t, "acme", "1", seed))
	}
	s := static(t, keys...)
	found(t, s, "acme", "1", keys...)
	found(t, s, "acme", "", keys...)
}

// An error changes nothing: not the keys of the store, not an end, and not the store that
// a key belongs to.
func TestReplaceAllOrNothing(t *testing.T) {
	withdrawn := hs256(t, "acme", "9", "w")
	withdrawn.Withdraw()
	foreign := hs256(t, "acme", "8", "f")
	static(t, foreign)
	var nine, nineWithout []*keystore.Key
	for _, seed := range strings.Split("abcdefghi", "") {
		nine = append(nine, hs256(t, "acme", "5", seed))
		nineWithout = append(nineWithout, hs256(t, "acme", "", seed))
	}
	tests := []struct {
		name string
		bad  []*keystore.Key
		want string
	}{
		{"a nil key", []*keystore.Key{nil}, "nil Key"},
		{"a withdrawn key", []*keystore.Key{withdrawn}, "was withdrawn"},
		{"a key of another store", []*keystore.Key{foreign}, "another store"},
		{"more than eight of one name", nine, `9 keys share "acme"/"5" and HS256, and cost more than 8`},
		{"more than eight without kid", nineWithout, `9 keys share "acme"/"" and HS256, and cost more than 8`},
		{"three slow ones of one name", public(t, "5", keystore.ES384, 3), `3 keys share "acme"/"5" and ES384, and cost more than 8`},
		{"more than eight under two names", append(public(t, "5", keystore.EdDSA, 5), public(t, "5", keystore.Ed25519, 4)...), "cost more than 8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			held, goes := hs256(t, "acme", "1", "a"), hs256(t, "acme", "2", "b")
			s := static(t, held, goes)
			again, comes := hs256(t, "acme", "1", "a"), hs256(t, "acme", "3", "c")
			again.SetUntil(time.Time{})

			err := s.Replace(append([]*keystore.Key{again, comes}, tt.bad...)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Replace error = %v, want one with %q", err, tt.want)
			}
			found(t, s, "acme", "1", held)
			found(t, s, "acme", "2", goes)
			found(t, s, "acme", "3")
			usable(t, true, held, goes, comes)
			if !s.Serves("acme") {
				t.Error("Serves(acme) = false after an error")
			}
			// comes and the held keys belong to whom they did.
			static(t, comes)
			if _, err := keystore.NewStatic(held); err == nil {
				t.Error("another store took a key that this one holds")
			}
			if s, err := keystore.NewStatic(tt.bad...); err == nil || s != nil {
				t.Errorf("NewStatic = %v, %v, want an error", s, err)
			}
		})
	}
}

func TestKeyBelongsToOneStore(t *testing.T) {
	k := hs256(t, "acme", "1", "a")
	s := static(t, k)
	if _, err := keystore.NewStatic(k); err == nil {
		t.Error("a second store took the key: the first would withdraw it there")
	}
	// An equal key is another Key.
	other := hs256(t, "acme", "1", "a")
	static(t, other)
	if err := s.Replace(); err != nil {
		t.Fatal(err)
	}
	usable(t, true, other)
	if err := s.Replace(k); err == nil {
		t.Error("the store took back a key that it had withdrawn")
	}
}

func TestTokensWithoutKID(t *testing.T) {
	var eight []*keystore.Key
	for _, kid := range []string{"1", "2", "", "4", "5", "6", "7", "8"} {
		eight = append(eight, hs256(t, "acme", kid, "seed "+kid))
	}
	ninth, other := hs256(t, "acme", "9", "e"), hs256(t, "globex", "1", "g")
	s := static(t, append(eight, other)...)
	found(t, s, "acme", "", eight...)
	found(t, s, "globex", "", other)
	found(t, s, "initech", "")

	if err := s.Replace(append(eight, other, ninth)...); err != nil {
		t.Fatal(err)
	}
	found(t, s, "acme", "") // nine are too many, so none is offered
	found(t, s, "globex", "", other)
	found(t, s, "acme", "9", ninth)
	found(t, s, "acme", "1", eight[0])
	usable(t, true, eight...)
	_, err := s.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256)
	if want := "9 keys may have signed a token without kid, which costs 9 checks, and at most 8 are allowed"; !strings.HasPrefix(keystore.NotFoundDetail(err), want) {
		t.Errorf("detail %q, want %q", keystore.NotFoundDetail(err), want)
	}

	if err := s.Replace(eight[1:]...); err != nil {
		t.Fatal(err)
	}
	found(t, s, "acme", "", eight[1:]...)
}

func TestKeyWithoutKIDServesOnlyTokensWithoutKID(t *testing.T) {
	k := hs256(t, "acme", "", "a")
	s := static(t, k)
	found(t, s, "acme", "", k)
	found(t, s, "acme", "1")
	found(t, s, "globex", "")
}

func TestServes(t *testing.T) {
	s := static(t)
	if !s.Serves("acme") || !s.Serves("") {
		t.Error("a store that is still empty serves any tenant")
	}
	if err := s.Replace(hs256(t, "acme", "1", "a")); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string]bool{"acme": true, "Acme": false, "acme ": false, "globex": false, "": false} {
		if got := s.Serves(tenant); got != want {
			t.Errorf("Serves(%q) = %v, want %v", tenant, got, want)
		}
	}
	if err := s.Replace(hs256(t, "globex", "1", "a")); err != nil {
		t.Fatal(err)
	}
	if s.Serves("acme") {
		t.Error("Serves of a tenant whose keys went = true")
	}
}

// TestZeroStatic: the zero Static is an empty store.
func TestZeroStatic(t *testing.T) {
	s := new(keystore.Static)
	if keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256); !errors.Is(err, keystore.ErrNotFound) || keys != nil {
		t.Errorf("Lookup = %v, %v", keys, err)
	}
	if !s.Serves("acme") {
		t.Error("an empty store does not serve whom it may serve later")
	}
	if err := s.Replace(hs256(t, "acme", "1", "a")); err != nil {
		t.Error(err)
	}
	if keys, err := s.Lookup(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256); err != nil || len(keys) != 1 {
		t.Errorf("Lookup = %v, %v", keys, err)
	}
}

// TestKeyWithoutKIDStays: the store keeps a key without kid even while it has too many
// keys to offer it to tokens without kid.
func TestKeyWithoutKIDStays(t *testing.T) {
	fresh := func() []*keystore.Key {
		var keys []*keystore.Key
		for _, kid := range []string{"", "b", "c", "d", "e", "f", "g", "h", "i"} {
			keys = append(keys, hs256(t, "acme", kid, "a"))
		}
		return keys
	}
	first := fresh()
	s, err := keystore.NewStatic(first...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(keystore.ID{Tenant: "acme"}, keystore.HS256); !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("nine keys are offered: %v", err)
	}
	if err := s.Replace(fresh()...); err != nil {
		t.Fatal(err)
	}
	for _, k := range first {
		if !k.Usable(time.Now()) {
			t.Errorf("%v was withdrawn", k)
		}
	}
}

// A key that SetUntil has ended stays ended, whatever Replace is under way meanwhile with the keys
// of the store. The first key is read long before the commit, since many follow.
func TestReplaceRacesWithSetUntil(t *testing.T) {
	keys := make([]*keystore.Key, 50)
	for i := range keys {
		keys[i] = hs256(t, "acme", fmt.Sprint(i), fmt.Sprint("seed ", i))
	}
	s := static(t, keys...)
	var replaced atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer done.Store(true)
	wg.Go(func() {
		for !done.Load() {
			if err := s.Replace(keys...); err != nil {
				t.Error(err)
			}
			replaced.Add(1)
		}
	})
	// after waits until n calls have ended: with n = 2, the second began after the first look.
	after := func(n int64) {
		for until := replaced.Load() + n; replaced.Load() < until; {
			runtime.Gosched()
		}
	}
	for i := range 50 {
		keys[0].SetUntil(noon.Add(time.Hour))
		after(2)
		keys[0].SetUntil(noon)
		after(1)
		if keys[0].Usable(noon) {
			t.Fatalf("round %d: a key that SetUntil had ended lives again", i)
		}
	}
}

// Of the ends of a key that is given twice, the earlier one counts, whatever the order.
func TestKeyTwiceWithTwoEnds(t *testing.T) {
	early, late := noon, noon.Add(time.Hour)
	for name, held := range map[string]bool{"a new key": false, "a held key": true} {
		for _, ends := range [][]time.Time{{early, late}, {late, early}, {early, {}}, {late, early, late}} {
			s := static(t)
			if held {
				s = static(t, hs256(t, "acme", "1", "a"))
			}
			var keys []*keystore.Key
			for _, end := range ends {
				k := hs256(t, "acme", "1", "a")
				k.SetUntil(end)
				keys = append(keys, k)
			}
			if err := s.Replace(keys...); err != nil {
				t.Fatal(err)
			}
			got, err := s.Lookup(acme1, keystore.HS256)
			if err != nil || len(got) != 1 {
				t.Fatalf("%s: Lookup = %v, %v", name, got, err)
			}
			usable(t, false, got...)
		}
	}
}

// One secret in two tenants is an error, even under another algorithm, or with a line end or zero
// bytes behind it. Within a tenant it is none, and neither is a public key that the tenants of one
// issuer share.
func TestSharedSecret(t *testing.T) {
	of := func(tenant string, alg keystore.Algorithm, secret string) *keystore.Key {
		return secretKey(alg, []byte(secret))(t, keystore.ID{Tenant: tenant, KID: "1"})
	}
	public := publicKey(keystore.ES256, &p256Key().PublicKey)
	const secret = "correct horse battery staple, and 31 bytes more, so 64 in total."
	tests := []struct {
		name   string
		keys   []*keystore.Key
		shared bool
	}{
		{"two tenants", []*keystore.Key{of("acme", keystore.HS256, secret), of("globex", keystore.HS256, secret)}, true},
		{"two algorithms", []*keystore.Key{of("acme", keystore.HS256, secret), of("globex", keystore.HS512, secret)}, true},
		{"a line end", []*keystore.Key{of("acme", keystore.HS256, secret), of("globex", keystore.HS256, secret+"\r\n")}, true},
		{"zero bytes", []*keystore.Key{of("acme", keystore.HS512, secret), of("globex", keystore.HS512, secret+"\x00\x00")}, true},
		{"the third of three", []*keystore.Key{of("acme", keystore.HS256, secret), of("initech", keystore.HS256, secret[1:]), of("globex", keystore.HS256, secret)}, true},
		{"one tenant", []*keystore.Key{of("acme", keystore.HS256, secret), of("acme", keystore.HS512, secret)}, false},
		{"two secrets", []*keystore.Key{of("acme", keystore.HS256, secret), of("globex", keystore.HS256, secret[1:])}, false},
		{"a public key", []*keystore.Key{public(t, acme1), public(t, keystore.ID{Tenant: "globex", KID: "1"})}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := keystore.NewStatic(tt.keys...)
			if (err != nil) != tt.shared || (s != nil) == tt.shared {
				t.Fatalf("NewStatic = %v, %v, want an error: %v", s, err, tt.shared)
			}
			if !tt.shared {
				return
			}
			text := err.Error()
			if !strings.Contains(text, `"acme"`) || !strings.Contains(text, `"globex"`) || !strings.Contains(text, "NewStaticShared") {
				t.Errorf("the error names neither tenants nor waiver: %v", err)
			}
			if strings.Contains(text, secret[:8]) {
				t.Errorf("the error quotes the secret: %v", err)
			}
			if s, err := keystore.NewStaticShared(tt.keys...); err != nil || !s.Serves("globex") {
				t.Errorf("NewStaticShared: %v", err)
			}
		})
	}
}

// Replace looks for shared secrets as NewStatic does, and keeps the keys of the store if it finds
// one. A secret that moves to another tenant is shared by none.
func TestReplaceSharedSecret(t *testing.T) {
	held := hs256(t, "acme", "1", "a")
	s := static(t, held)
	if err := s.Replace(hs256(t, "acme", "1", "a"), hs256(t, "globex", "1", "a")); err == nil {
		t.Error("Replace took one secret for two tenants")
	}
	found(t, s, "acme", "1", held)
	usable(t, true, held)
	if err := s.Replace(hs256(t, "globex", "1", "a")); err != nil {
		t.Error(err)
	}
	usable(t, false, held)

	if err := new(keystore.Static).Replace(hs256(t, "acme", "1", "a"), hs256(t, "globex", "1", "a")); err == nil {
		t.Error("the zero Static took one secret for two tenants")
	}
	waived, err := keystore.NewStaticShared()
	if err != nil {
		t.Fatal(err)
	}
	if err := waived.Replace(hs256(t, "acme", "1", "a"), hs256(t, "globex", "1", "a")); err != nil {
		t.Errorf("Replace of a store made by NewStaticShared: %v", err)
	}
}
