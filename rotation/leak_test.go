package rotation_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestNothingSecretIsLogged(t *testing.T) {
	virtual(t, func(t *testing.T) {
		var out lockedBuffer
		cluster := rotationtest.NewCluster(rotationtest.ClusterConfig{})
		m := join(t, cluster, "a", func(c *rotation.Config) {
			c.TrustFirstRead, c.Logger = true, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		defer m.run()()
		if _, err := m.rotator.Create(t.Context(), "acme", fast); err != nil {
			t.Fatal(err)
		}
		var said []string
		for range 20 {
			time.Sleep(time.Second)
			token, err := m.signer.Sign(t.Context(), "acme", map[string]any{"sub": "a-secret-subject"})
			said = append(said, token[max(0, len(token)-20):])
			if err != nil {
				t.Fatal(err)
			}
		}
		cluster.EditRing("acme", func(fields map[string][]byte) {
			for name, value := range fields {
				if strings.HasPrefix(name, "k:") {
					value[len(value)-1] ^= 1
				}
			}
		})
		time.Sleep(fast.Freshness)
		m.conn.SetFaults(rotationtest.Faults{Cut: rotationtest.Refused})
		time.Sleep(fast.SignFor)
		said = append(said, fmt.Sprintf("%v %+v", m.Status().Err, m.Keyring), "a-secret-subject", "0123456789abcdef0123456789ABCDEF")
		m.conn.SetFaults(rotationtest.Faults{})
		m.leave()
		for _, secret := range said[:len(said)-3] {
			if strings.Contains(out.String(), secret) {
				t.Error("a token is logged")
			}
		}
		for _, name := range []string{"merged back", "cannot be reached"} {
			if !strings.Contains(out.String(), name) {
				t.Errorf("the log does not say %q:\n%s", name, out.String())
			}
		}
		kek := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789ABCDEF"))
		for _, text := range []string{out.String(), said[len(said)-3]} {
			if strings.Contains(text, "a-secret-subject") || strings.Contains(text, "0123456789abcdef") || strings.Contains(text, kek) {
				t.Error("a secret is logged, or printed")
			}
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
