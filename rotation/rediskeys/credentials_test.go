package rediskeys_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// credentialsFail is how long credentials fail: until the instance has stopped to sign, or for
// KEYTURN_CREDENTIALS_FOR, which make soak sets, if that is longer.
func credentialsFail(t *testing.T) time.Duration {
	t.Helper()
	text, ok := os.LookupEnv("KEYTURN_CREDENTIALS_FOR")
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Credentials that fail for a while make an instance out of sync: it verifies, and stops to sign after
// SignFor. Meanwhile its connections are ended again and again, and another instance goes on. No good
// token is refused. Afterwards it is in sync again, by itself.
func TestReport_CredentialsFailForAWhile(t *testing.T) {
	redistest.Need(t)
	for name, tt := range map[string]struct {
		password string
		err      error // of get
		want     error
	}{
		"the function fails":    {"", errors.New("no token now"), rediskeys.ErrCredentials},
		"the password is wrong": {"wrong", nil, rediskeys.ErrNoAuth},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, admin := running(t)
			setUser(t, server, documented)
			var away atomic.Bool
			m := turning(t, server, func(context.Context) (string, string, error) {
				if away.Load() {
					return "", tt.password, tt.err
				}
				return "", "right", nil
			})
			other := memberOn(t, admin, "other", func(c *rotation.Config) { c.Poll, c.Deadline = 100*time.Millisecond, time.Second })
			eventually(t, "the other to be in sync", func() bool { return other.keys.Status().Fresh })
			w := watchGood(t, m, other)
			away.Store(true)
			rotations := 0
			for end := time.Now().Add(credentialsFail(t)); m.keys.Status().CanSign || time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				hangUp(t, server)
				if _, err := other.rotator.Rotate(t.Context(), nemesisTenant, rotation.Force); err == nil { // refused until the next key is known
					rotations++
				}
			}
			status := m.keys.Status()
			if status.Fresh || !errors.Is(status.Err, tt.want) || tt.err != nil && !strings.Contains(status.Err.Error(), tt.err.Error()) {
				t.Errorf("the status is %+v", status)
			}
			away.Store(false)
			eventually(t, "to be in sync again", func() bool { s := m.keys.Status(); return s.Fresh && s.CanSign })
			t.Logf("%d forced rotations meanwhile", rotations)
			w.end(t)
			for _, signer := range []*member{m, other} {
				_, token := signer.signing(t)
				for _, one := range []*member{m, other} {
					eventually(t, one.name+" to verify a new token of "+signer.name, func() bool {
						_, err := one.verifier.Verify(t.Context(), token)
						return err == nil
					})
				}
			}
		})
	}
}

// A watch verifies good tokens at an instance, all the time.
type watch struct {
	stop         context.CancelFunc
	done         sync.WaitGroup
	good, cannot atomic.Int64 // verdicts
	bad          atomic.Value // a wrong verdict, as text
}

// watchGood has m verify the tokens that other signs. One of a key that m knows is good. Of one whose key
// is newer than its last sync it may say that it cannot tell, and never that it is bad.
func watchGood(t *testing.T, m, other *member) *watch {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &watch{stop: stop}
	_, known := m.signing(t)
	w.done.Go(func() {
		for ctx.Err() == nil {
			if _, err := m.verifier.Verify(context.WithoutCancel(ctx), known); err != nil {
				w.bad.Store("of a known key: " + err.Error())
			}
			if token, err := other.signer.Sign(context.WithoutCancel(ctx), nemesisTenant, nil); err == nil {
				switch _, err := m.verifier.Verify(context.WithoutCancel(ctx), token); {
				case err == nil:
					known = token
					w.good.Add(1)
				case errors.Is(err, verifier.ErrUnavailable):
					w.cannot.Add(1)
				default:
					w.bad.Store("of a fresh token: " + err.Error())
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	t.Cleanup(func() { stop(); w.done.Wait() })
	return w
}

func (w *watch) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.done.Wait()
	if bad := w.bad.Load(); bad != nil || w.good.Load() < 100 {
		t.Errorf("a good token was refused: %v; %d were not", bad, w.good.Load())
	}
	t.Logf("%d tokens verified, of %d it could not tell", w.good.Load(), w.cannot.Load())
}
