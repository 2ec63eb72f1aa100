package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// strikeKEK replaces the KEK under load, one instance after the other, as docs/formats.md says.
// Then an attacker tries to open keys that were minted afterwards. It has the old KEK, and dumps of
// Redis from before the change and from after it.
func strikeKEK(ctx context.Context, f *fleet, o options) error {
	old, new := f.kek, make([]byte, 32)
	rand.Read(new) // never fails
	before, err := f.readRings(ctx)
	if err != nil {
		return err
	}
	for _, keys := range [][][]byte{{old, new}, {new, old}} {
		if err := f.setKEKs(ctx, o, keys...); err != nil {
			return err
		}
	}
	for _, t := range tenants {
		if err := f.rekey(ctx, t.name); err != nil {
			return err
		}
	}
	f.rekeyGuests(ctx)
	since := time.Now()
	f.kek = new
	if err := f.setKEKs(ctx, o, new); err != nil {
		return err
	}
	later, err := f.awaitMints(ctx, since)
	if err != nil {
		return err
	}
	after, err := f.readRings(ctx)
	if err != nil {
		return err
	}
	return f.openWith(ctx, old, before, after, later)
}

// setKEKs gives every instance other KEKs, one after the other.
func (f *fleet) setKEKs(ctx context.Context, o options, keys ...[]byte) error {
	keks, err := rotation.NewKEKs(keys...)
	if err != nil {
		return err
	}
	for _, m := range f.random(len(f.instances())) {
		var last error
		err := await(ctx, "an instance to take other KEKs", func() bool { // it keeps a KEK until it has read the rings that were sealed again
			if last = m.keys.SetKEKs(keks); last != nil {
				f.rekeyGuests(ctx)
			}
			return last == nil
		})
		if err != nil {
			return fmt.Errorf("instance %s: %w: %w", m.name, err, last)
		}
		if err := sleep(ctx, o.pick(f, 50*time.Millisecond, 500*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// rekey seals a ring under the new KEK, as soon as all instances are known to have it first.
func (f *fleet) rekey(ctx context.Context, tenant string) error {
	var last error
	err := await(ctx, "a rekey of "+tenant, func() bool {
		_, _, last = f.random(1)[0].rotator.Rekey(ctx, tenant)
		return last == nil || !errors.Is(last, rotation.ErrRefused) && !errors.Is(last, keystore.ErrUnavailable)
	})
	return errors.Join(err, last)
}

// rekeyGuests tries to seal the rings of the guests under the new KEK.
func (f *fleet) rekeyGuests(ctx context.Context) {
	for _, name := range f.guestNames() {
		_, _, _ = f.random(1)[0].rotator.Rekey(ctx, name) // the caller tries again
	}
}

// A rings has the fields of rings, by tenant.
type rings map[string]map[string]string

func (f *fleet) readRings(ctx context.Context) (rings, error) {
	all := make(rings)
	for _, t := range tenants {
		fields, err := f.servers.(single).Client().HGetAll(ctx, ringKey(t.name)).Result()
		if err != nil {
			return nil, err
		}
		all[t.name] = fields
	}
	return all, nil
}

// awaitMints waits until every ring has a key that was minted after a time. It returns the kids of
// those keys.
func (f *fleet) awaitMints(ctx context.Context, since time.Time) (later map[string]bool, err error) {
	err = await(ctx, "keys to be minted after the change", func() bool {
		later = make(map[string]bool)
		found := 0
		for _, t := range tenants {
			s, err := f.instances()[0].keys.Tenant(t.name)
			if err != nil {
				return false
			}
			for _, k := range s.Ring.Keys {
				if k.Created.After(since) {
					later[k.KID] = true
				}
			}
			if newestOf(s.Ring).Created.After(since) {
				found++
			}
		}
		return found == len(tenants)
	})
	return later, err
}

// openWith opens what a KEK opens of the rings of before and after, and counts keys that were
// minted later. Each record of either dump is tried with all tenant keys of both.
func (f *fleet) openWith(ctx context.Context, kek []byte, before, after rings, later map[string]bool) (err error) {
	server, err := redistest.Start(redistest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	for _, all := range []rings{after, before} { // what is in both is of before: its tenant keys are under the old KEK
		for tenant, fields := range all {
			for name, value := range fields {
				if strings.HasPrefix(name, "k:") || strings.HasPrefix(name, "tk:") {
					server.Client().HSet(ctx, ringKey(tenant), name, value)
				}
			}
		}
	}
	opened, err := openedWith(ctx, server, kek)
	if err != nil {
		return err
	}
	if len(opened) < len(tenants) {
		return fmt.Errorf("the old KEK opens only %d keys of before the change, so the attack proves nothing", len(opened))
	}
	for kid := range later {
		if opened[kid] {
			f.tally.violation("the old KEK opens key %s, which was minted after the change", kid)
		}
	}
	return nil
}

// openedWith returns the kids of the keys that a KEK opens on a server.
func openedWith(ctx context.Context, server *redistest.Server, kek []byte) (map[string]bool, error) {
	keks, err := rotation.NewKEKs(kek)
	if err != nil {
		return nil, err
	}
	client, err := rediskeys.Open("redis://" + server.Addr())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return nil, err
	}
	k, err := rotation.Open(ctx, store, rotation.Config{KEKs: keks, Tenants: tenantNames(), OneShot: true})
	if err != nil {
		return nil, err
	}
	defer k.Close(ctx)
	kids := make(map[string]bool)
	for _, t := range tenants {
		s, err := k.Tenant(t.name)
		if err != nil {
			return nil, err
		}
		for _, key := range s.Ring.Keys {
			kids[key.KID] = true
		}
	}
	return kids, nil
}
