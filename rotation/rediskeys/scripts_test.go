package rediskeys_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

func TestFlushedScriptsAreSentAgain(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	client := connect(t, "redis://"+server.Addr())
	s := storeOf(t, client, rediskeys.Config{})
	requests := allBuckets()
	place(t, requests, s.Sync(t.Context(), "one", requests))
	old := set(t, s, tenant, "f", "1")
	var c counter
	client.AddHook(&c)
	for name, call := range map[string]func() error{
		"Sync":    func() error { return s.Sync(t.Context(), "one", requests[:3])[2].Err },
		"Load":    func() error { return s.Load(t.Context(), []string{tenant})[0].Err },
		"Tenants": func() error { _, err := s.Tenants(t.Context(), []int{1, 2}); return err },
		"Acks":    func() error { _, _, err := s.Acks(t.Context(), bucket); return err },
		"Forget":  func() error { return s.Forget(t.Context(), "two", []int{1, 2}) },
		"Log":     func() error { return s.Log(t.Context(), []rediskeys.LogRead{{Bucket: bucket}})[0].Err },
		"Write": func() error {
			r, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: old.Digest, Set: map[string][]byte{"f": []byte("2")}})
			if err == nil && r.Code != rotation.Committed {
				return fmt.Errorf("code %d", r.Code)
			}
			return err
		},
	} {
		do(t, server, "SCRIPT", "FLUSH")
		c.eval.Store(0)
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.eval.Load() == 0 {
			t.Errorf("%s: no script had to be sent again", name)
		}
	}
}
