package jwks_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/keystore/jwks/jwkstest"
)

// among returns a set of key and of others, given by their members.
func among(key *jwkstest.Key, others ...string) string {
	var all []string
	for _, members := range others {
		all = append(all, "{"+members+"}")
	}
	return strings.TrimSuffix(jwkstest.Set(key), "]}") + "," + strings.Join(all, ",") + "]}"
}

// padded returns members with their base64 padded.
func padded(members string) string {
	var out []string
	for _, part := range strings.Split(members, `"`) {
		if b, err := base64.RawURLEncoding.DecodeString(part); err == nil && len(b) >= 31 {
			part = base64.URLEncoding.EncodeToString(b)
		}
		out = append(out, part)
	}
	return strings.Join(out, `"`)
}

// The set has the token's kid, but that key does not serve. The error says why. The kid costs as much
// as any unknown one, and serves once the issuer has mended its set.
func TestSkippedKIDSaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.PublishBody(among(w.a, `"kid":"weak",`+rsaMembers(1024, 1), `"kid":"a","use":"enc",`+edMembers(1), `"kty":"OKP","crv":"Ed448"`))
		s := w.ready(jwks.SourceConfig{})
		want := `kid "weak" is in the set, but was skipped: an RSA key of 1024 bits: want at least 2048`
		for range 2 {
			for name, err := range map[string]error{
				"Lookup":  second(s.Lookup(keystore.ID{Tenant: "acme", KID: "weak"}, keystore.RS256)),
				"Refresh": s.Refresh(t.Context(), keystore.ID{Tenant: "acme", KID: "weak"}),
			} {
				wantOnly(t, name, err, keystore.ErrNotFound)
				if !strings.Contains(err.Error(), want) || keystore.NotFoundDetail(err) == "" {
					t.Errorf("%s error = %v", name, err)
				}
			}
		}
		// A kid of which another key serves is not explained by the one that does not.
		for _, kid := range []string{"a", "", "other"} {
			if _, err := s.Lookup(keystore.ID{Tenant: "acme", KID: kid}, keystore.EdDSA); err != keystore.ErrNotFound {
				t.Errorf("Lookup(%q) = %v", kid, err)
			}
		}
		if _, err := s.Lookup(keystore.ID{Tenant: "other", KID: "weak"}, keystore.RS256); err != keystore.ErrNotFound {
			t.Errorf("another tenant's Lookup = %v", err)
		}
		w.issuer.Publish(w.a, jwkstest.NewKey("weak", "ES256"))
		time.Sleep(time.Minute)
		w.wantRefresh(s, "weak", nil)
		if _, err := get(s, "weak"); err != nil {
			t.Errorf("after the repair: %v", err)
		}
	})
}

// Too many keys without kid: a token without kid learns why none of them is tried.
func TestSkippedWithoutKIDSaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var many []string
		for i := range keystore.MaxCandidates + 1 {
			many = append(many, `"alg":"EdDSA",`+edMembers(byte(i)))
		}
		w.issuer.PublishBody(among(w.a, append(many, `"use":"enc",`+rsaMembers(2048, 1))...))
		s := w.ready(jwks.SourceConfig{})
		id := keystore.ID{Tenant: "acme"}
		for name, err := range map[string]error{"Lookup": second(s.Lookup(id, keystore.EdDSA)), "Refresh": s.Refresh(t.Context(), id)} {
			wantOnly(t, name, err, keystore.ErrNotFound)
			if want := "keys without kid are in the set, but were skipped: 9 keys without kid share its alg"; !strings.Contains(err.Error(), want) {
				t.Errorf("%s error = %v", name, err)
			}
		}
		if _, err := s.Lookup(id, keystore.ES256); err != nil {
			t.Errorf("the key that serves a token without kid: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// Each new set that skips a key, or reads one irregularly, logs one line. Status has the same.
func TestNewSetWarnsOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.ready(jwks.SourceConfig{})
		warnings := func() int { return strings.Count(w.log.String(), "skipped or irregular") }
		if warnings() != 0 {
			t.Fatalf("an ordinary set: %s", w.log)
		}
		ec := ecMembers(elliptic.P256())
		w.issuer.PublishBody(among(w.a, `"kid":"weak",`+rsaMembers(1024, 1), `"kid":"odd\n",`+padded(ec), `"kid":"e","use":"enc",`+edMembers(1)))
		w.busy(s, w.a, 3*learned(s))
		if warnings() != 1 {
			t.Errorf("%d lines for one set, want 1:\n%s", warnings(), w.log)
		}
		for _, want := range []string{"level=WARN", "tenant=acme", `weak`, "1024 bits", `odd`, "is padded", `its use is`} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, w.log)
			}
		}
		st := s.Status()
		if len(st.Skipped) != 2 || len(st.Irregular) != 1 || st.Irregular[0].KID != "odd\n" || st.Irregular[0].Index != 2 || !strings.Contains(st.Irregular[0].What, `"x" is padded`) {
			t.Errorf("skipped %v, irregular %v", st.Skipped, st.Irregular)
		}
		if _, err := get(s, "odd\n"); err != nil {
			t.Errorf("the irregular key: %v", err)
		}
		w.issuer.PublishBody(among(w.a, `"kid":"odd",`+padded(ec)))
		w.busy(s, w.a, learned(s))
		w.issuer.Publish(w.a)
		w.busy(s, w.a, learned(s))
		if st := s.Status(); warnings() != 2 || len(st.Skipped)+len(st.Irregular) != 0 {
			t.Errorf("%d lines for two sets; skipped %v, irregular %v", warnings(), st.Skipped, st.Irregular)
		}
	})
}

// The line has an end, however many keys are odd and whatever their kids are.
func TestWarningIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var odd []string
		for i := range 900 {
			odd = append(odd, fmt.Sprintf(`"kid":"%d%s","use":"enc"`, i, strings.Repeat("k", 250))+`,"kty":"OKP"`)
		}
		w.issuer.PublishBody(among(w.a, odd...))
		w.ready(jwks.SourceConfig{})
		if log := w.log.String(); !strings.Contains(log, "and 884 more") || len(log) > 10_000 {
			t.Errorf("%d bytes: %.2000s", len(log), log)
		}
	})
}

// A source keeps its *Key, and so its cached tokens, when its issuer spells the key otherwise.
func TestKeyOfAnotherSpellingStays(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		x, y := strippedPoint(elliptic.P256())
		spell := func(x, y []byte, encode func([]byte) string) string {
			return `"kid":"c","kty":"EC","crv":"P-256","x":"` + encode(x) + `","y":"` + encode(y) + `"`
		}
		w.issuer.PublishBody(among(w.a, spell(x, y, b64)))
		s := w.ready(jwks.SourceConfig{})
		c, err := get(s, "c")
		if err != nil {
			t.Fatal(err)
		}
		for _, members := range []string{
			spell(x[1:], y, b64), spell(x, append([]byte{0}, y...), b64), spell(x, y, base64.StdEncoding.EncodeToString),
			`"use":null,"d":null,"key_ops":[],` + spell(x, y, b64),
		} {
			w.issuer.PublishBody("\ufeff" + among(w.a, members))
			w.busy(s, w.a, learned(s))
			if again, err := get(s, "c"); err != nil || again != c || !c.Usable(time.Now()) {
				t.Errorf("%s: %v, %v, want the same pointer", members, again, err)
			}
		}
	})
}

// Beyond a limit the old set stays, for as long as after any failure, and the source says which
// setting would let the new one in.
func TestSetBeyondLimitLeavesOldOne(t *testing.T) {
	ed := func(from, to int) (all []string) {
		for i := from; i < to; i++ {
			all = append(all, fmt.Sprintf(`"kid":"%d",`, i)+edMembers(byte(i)))
		}
		return all
	}
	many := slices.Repeat([]string{`"use":"enc","kty":"OKP"`}, 1024)
	for name, tt := range map[string]struct {
		cfg     jwks.SourceConfig
		body    func(a *jwkstest.Key) string
		setting jwks.Setting
		text    string
	}{
		"keys that serve": {jwks.SourceConfig{MaxKeys: 3}, func(a *jwkstest.Key) string { return among(a, ed(0, 3)...) }, jwks.SettingMaxKeys, "4 usable keys: at most 3"},
		"keys in all":     {jwks.SourceConfig{}, func(a *jwkstest.Key) string { return among(a, many...) }, jwks.SettingMaxKeys, "more than 1024 keys"},
		"bytes":           {jwks.SourceConfig{MaxBytes: 2000}, func(a *jwkstest.Key) string { return among(a, `"x":"`+strings.Repeat("x", 2000)+`"`) }, jwks.SettingMaxBytes, "more than 2000 bytes"},
		"default bytes":   {jwks.SourceConfig{}, func(a *jwkstest.Key) string { return among(a, `"x":"`+strings.Repeat("x", 1<<20)+`"`) }, jwks.SettingMaxBytes, "more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s := w.ready(tt.cfg)
				b := w.wantKey(s, w.b)
				w.issuer.PublishBody(tt.body(w.a))
				w.busy(s, w.b, learned(s))
				e := new(jwks.Error)
				if err := s.Status().LastError; !errors.As(err, &e) || e.Setting != tt.setting || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("LastError = %v, want %q", err, tt.text)
				}
				if w.wantKey(s, w.b) != b || !strings.Contains(w.log.String(), tt.text) {
					t.Errorf("the log does not say so: %s", w.log)
				}
				w.wantLookup(s, "new", keystore.ErrUnavailable)
				w.issuer.Publish(w.a, w.b, jwkstest.NewKey("new", "ES256"))
				w.busy(s, w.b, learned(s))
				if _, err := get(s, "new"); err != nil || s.Status().LastError != nil {
					t.Errorf("within the limit again: %v, %v", err, s.Status().LastError)
				}
			})
		})
	}
}

// A limit can be raised, also for what is kept on disk.
func TestRaisedLimits(t *testing.T) {
	parallel(t)
	virtual(t, func(t *testing.T) {
		cfg, dir := jwks.SourceConfig{MaxKeys: 600, MaxBytes: 3 << 20}, t.TempDir()
		w := newWorld(t, jwkstest.NewInMemory(t), jwks.Config{Dir: dir})
		var all []string
		for i := range 598 {
			all = append(all, fmt.Sprintf(`"kid":"%d","alg":"ES256",`, i)+ecMembers(elliptic.P256()))
		}
		w.issuer.PublishBody(among(w.a, append(all, `"kty":"EC","note":"`+strings.Repeat("n", 2<<20)+`"`)...))
		s := w.ready(cfg)
		if got := len(s.Status().Keys); got != 599 {
			t.Fatalf("%d keys serve, want 599: %v", got, s.Status().LastError)
		}
		synctest.Wait()
		w.client.Close(t.Context())
		w.issuer.Misbehave(jwkstest.Status(500))
		w.client = jwks.New(jwks.Config{Dir: dir, TLS: w.issuer.TLS(), LookupNetIP: w.issuer.LookupNetIP, DialContext: w.issuer.DialContext, Logger: slog.New(slog.NewTextHandler(w.log, nil))})
		if s := w.open(cfg); len(s.Status().Keys) != 599 {
			t.Errorf("after a restart %d keys serve", len(s.Status().Keys))
		}
		if lines := strings.Count(w.log.String(), "skipped or irregular"); lines != 2 {
			t.Errorf("%d lines of two processes, want 2:\n%s", lines, w.log)
		}
	})
	for _, cfg := range []jwks.SourceConfig{{MaxKeys: -1}, {MaxKeys: 8193}, {MaxBytes: -1}, {MaxBytes: 16<<20 + 1}, {Uses: []string{"enc"}}, {Uses: []string{"encrypt"}}, {Uses: []string{"jwt-svid", ""}}} {
		client := jwks.New(jwks.Config{})
		if s, err := client.Open("acme", "https://login.example/jwks.json", cfg); err == nil || s != nil || !strings.Contains(err.Error(), "SourceConfig.") {
			t.Errorf("%+v: Open error = %v", cfg, err)
		}
		client.Close(t.Context())
	}
}

// The operations that are listed serve in the place of verify. A use that contradicts them counts.
func TestUsesOfKeyOps(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.PublishBody(among(w.a,
			`"kid":"oracle","key_ops":["encrypt","sign"],"alg":"ES256",`+ecMembers(elliptic.P256()), `"kid":"signs","key_ops":["sign"],"alg":"ES256",`+ecMembers(elliptic.P256()),
			`"kid":"enc","use":"enc","key_ops":["sign"],"alg":"ES256",`+ecMembers(elliptic.P256()), `"kid":"encrypts","key_ops":["encrypt"],"alg":"ES256",`+ecMembers(elliptic.P256()),
			`"kid":"both","use":"sig","key_ops":["sign","encrypt"],"alg":"ES256",`+ecMembers(elliptic.P256()),
		))
		oracle, plain := w.ready(jwks.SourceConfig{Uses: []string{"sign"}}), w.ready(jwks.SourceConfig{})
		for kid, want := range map[string]bool{"a": true, "oracle": true, "signs": true, "enc": false, "encrypts": false, "both": false} {
			if _, err := get(oracle, kid); (err == nil) != want {
				t.Errorf("with Uses, %s: %v", kid, err)
			}
			if _, err := get(plain, kid); (err == nil) != (kid == "a") {
				t.Errorf("without, %s: %v", kid, err)
			}
		}
	})
}

// Values of use that are listed serve, for that source alone, and no key of encryption does.
func TestUses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.issuer.PublishBody(among(w.a,
			`"kid":"jwt","use":"jwt-svid","alg":"ES256",`+ecMembers(elliptic.P256()), `"kid":"x509","use":"x509-svid","alg":"ES256",`+ecMembers(elliptic.P256()),
			`"kid":"enc","use":"enc","alg":"ES256",`+ecMembers(elliptic.P256()), `"kid":"ops","use":"jwt-svid","key_ops":["sign"],"alg":"ES256",`+ecMembers(elliptic.P256()),
			`"kid":"both","use":"jwt-svid","key_ops":["verify","encrypt"],"alg":"ES256",`+ecMembers(elliptic.P256()),
		))
		uses := []string{"wit-svid", "jwt-svid"}
		spiffe, plain := w.ready(jwks.SourceConfig{Uses: uses}), w.ready(jwks.SourceConfig{})
		uses[1] = "x509-svid" // the source has its own copy
		same := w.ready(jwks.SourceConfig{Uses: []string{"jwt-svid", "wit-svid", "jwt-svid"}})
		for kid, want := range map[string]bool{"a": true, "jwt": true, "x509": false, "enc": false, "ops": false, "both": false} {
			if _, err := get(spiffe, kid); (err == nil) != want {
				t.Errorf("with Uses, %s: %v", kid, err)
			}
			if _, err := get(plain, kid); (err == nil) != (kid == "a") {
				t.Errorf("without, %s: %v", kid, err)
			}
		}
		if jwks.File(spiffe) == jwks.File(plain) || jwks.File(spiffe) != jwks.File(same) {
			t.Error("the files on disk do not tell the settings apart")
		}
	})
}
