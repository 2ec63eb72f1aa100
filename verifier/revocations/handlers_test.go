package revocations

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A fakeList notes the revocations.
type fakeList struct {
	mu       sync.Mutex // guards the fields
	calls    []string
	err      error
	latest   time.Time     // of a subject's before; zero: any
	storeNow time.Time     // what the refusal of a later one says
	none     bool          // it holds no token
	full     bool          // for spare entries
	silent   bool          // it does not answer
	hold     chan struct{} // if it is not nil, each call waits for it
}

func (f *fakeList) note(format string, args ...any) (Receipt, error) {
	if f.hold != nil {
		<-f.hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return Receipt{}, f.err
	}
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return Receipt{}, nil
}

func (f *fakeList) RevokeToken(ctx context.Context, tenant, jti string, exp time.Time) (Receipt, error) {
	if f.silent {
		<-ctx.Done()
		return Receipt{}, ctx.Err()
	}
	return f.note("token %s %s %d", tenant, jti, exp.Unix())
}

func (f *fakeList) RevokeSubject(ctx context.Context, tenant, sub string, before time.Time) (Receipt, error) {
	if f.silent {
		<-ctx.Done()
		return Receipt{}, ctx.Err()
	}
	if !f.latest.IsZero() && before.After(f.latest) {
		return Receipt{}, &futureError{before.Unix(), f.storeNow}
	}
	return f.note("subject %s %s %d", tenant, sub, before.Unix())
}

func (f *fakeList) RevokeSession(_ context.Context, tenant, sid string, exp time.Time) (Receipt, error) {
	return f.note("session %s %s %d", tenant, sid, exp.Unix())
}

func (f *fakeList) revokeSpare(_ context.Context, tenant, sid string, exp time.Time) (Receipt, error) {
	if f.full {
		return Receipt{}, ErrFull
	}
	return f.note("spare session %s %s %d", tenant, sid, exp.Unix())
}

func (f *fakeList) holdsToken(tenant, jti string) bool { return !f.none }

func (f *fakeList) revoked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, "; ")
}

// fail has all later calls fail with err; nil ends that.
func (f *fakeList) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

const (
	opURL    = "https://op.example"
	clientID = "shop"
)

var now = time.Unix(1_900_000_000, 0)

// seed returns a key that depends on its name alone.
func seed(name string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(sum[:])
}

// sign returns a token with that header and those claims.
func sign(key ed25519.PrivateKey, header string, claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text)))
}

const edHeader = `{"alg":"EdDSA","kid":"k1","typ":"logout+jwt"}`

// with returns base with changes; a nil value removes a claim.
func with(base, changes map[string]any) map[string]any {
	all := maps.Clone(base)
	for name, value := range changes {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	return all
}

// tenantRules are those of a tenant whose tokens the key with its name signs.
func tenantRules(t *testing.T, id, issuer string) verifier.Tenant {
	t.Helper()
	return verifier.Tenant{ID: id, Keys: keysOf(t, id, id), Algorithms: []keystore.Algorithm{keystore.EdDSA}, Issuer: issuer, Audiences: []string{"api"}}
}

// keysOf returns the key of that name as the key of a tenant.
func keysOf(t *testing.T, tenant, name string) keystore.KeyStore {
	t.Helper()
	key, err := keystore.NewPublic(keystore.ID{Tenant: tenant, KID: "k1"}, keystore.EdDSA, seed(name).Public())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keystore.NewStatic(key)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// post has h answer a form.
func post(h http.Handler, form url.Values, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// wantAnswer fails unless an answer has a status and a code of error, "" for none, and is not to be kept.
func wantAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("the body is not JSON: %q", w.Body)
		}
	}
	if w.Code != status || body.Error != code {
		t.Errorf("status %d, error %q, want %d, %q", w.Code, body.Error, status, code)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q, want no-store", got)
	}
	if got := w.Header().Get("Retry-After"); (got != "") != (status == http.StatusServiceUnavailable) {
		t.Errorf("status %d with Retry-After %q", status, got)
	}
}

// logs collects the lines of the log.
func logs() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// hmacToken signs with the bytes of a public key as the secret, as in the attack that confuses algorithms.
func hmacToken(secret []byte, claims map[string]any) string {
	body, _ := json.Marshal(claims)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"k1","typ":"logout+jwt"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

var errRedis = errors.New("redis is away")
