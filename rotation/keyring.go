package rotation

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/internal/synced"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A Keyring is this process's copy of the rings in a [Store]. It finds keys for a verifier and for
// a [Signer] from memory, without asking the store, and one goroutine of its own keeps it in sync.
// It is a keystore.Refresher, so give it to a verifier's tenants as their Keys, and a
// middleware.PublicKeySource. [Open] makes one. It is safe for concurrent use. Call [Keyring.Close]
// when done with it.
//
// While the store is away, a keyring goes on for a bounded time: its signer for the policy's
// SignFor, its keys until the last token that any instance may have signed has expired.
// docs/rotation.md has a table of what works for how long.
type Keyring struct {
	store Store
	cfg   Config
	rings *synced.Rings

	keks  *atomic.Pointer[seal.KEKs]    // those of rings
	times *atomic.Pointer[synced.Times] // those of rings
}

// Open returns a Keyring after the first complete read of the store. Afterwards the instance is
// recovering for two polls, unless another instance vouches for what the store has, or cfg trusts
// the first read: call [Keyring.WaitReady] before serving. ctx bounds Open alone. Store and
// cfg.KEKs are required.
//
// Of more than 512 rings it has read all, and authenticated some, unless cfg has a Snapshot or is OneShot. A lookup
// authenticates the ring that it needs, and the loop authenticates all others within seconds. Until then the
// keyring is not ready: it verifies tokens of each tenant, knows of no key that it is missing, and signs only if cfg
// trusts the first read.
//
// The error wraps [keystore.ErrUnavailable] if nothing of the store can be read, and [ErrWrongKEK]
// if no ring can be opened because the KEKs are wrong. It names the field if cfg is invalid. With
// [Config.StoreMayBeAway] it does not need the store. If
// only a part of the store cannot be read, such as one server of a Cluster, Open succeeds and each
// poll tries again: [Keyring.Status] reports it, and [Keyring.WaitReady] waits for it.
func Open(ctx context.Context, store Store, cfg Config) (*Keyring, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	keks, err := cfg.KEKs.sealing().In(cfg.Realm, cfg.OtherRealms...)
	if err != nil {
		return nil, err
	}
	rings, err := synced.Open(ctx, keks, synced.Config{Store: store, Tenants: cfg.Tenants, Instance: cfg.Instance, Poll: cfg.Poll, Deadline: cfg.Deadline,
		TrustFirstRead: cfg.TrustFirstRead, OneShot: cfg.OneShot, AllowBootstrap: cfg.AllowBootstrap, StoreMayBeAway: cfg.StoreMayBeAway, Snapshot: cfg.Snapshot, StoreName: nameOf(store), Verifies: cfg.Verifies,
		Logger: cfg.Logger, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	return &Keyring{store: store, cfg: cfg, rings: rings, keks: &rings.KEKs, times: &rings.Times}, nil
}

// nameOf returns the name by which a snapshot tells stores apart, if the store has one.
func nameOf(s Store) string {
	if named, ok := s.(interface{ Name() string }); ok {
		return named.Name()
	}
	return ""
}

// Close stops syncing, waits until the loop has ended, and removes this instance's acknowledgements
// from the store. Its keys remain for the time that they would if the store were away.
// [Keyring.WaitReady] and [Rotator.Run] return. ctx bounds the waiting and the removal. Close returns
// an error if ctx ends before the loop has, or if the acknowledgements remain: then [Rotator.Acks]
// still lists the instance. Close may be called again.
func (k *Keyring) Close(ctx context.Context) error { return k.rings.Close(ctx) }

// Add adds tenants to those of [Config.Tenants], and returns once their rings were read. The error wraps
// [keystore.ErrUnavailable] if one could not be; the tenants are added all the same, and each poll
// tries again, also where ctx has ended. A keyring of all tenants reads their rings now.
//
// With [Config.AllowBootstrap] the ring of a tenant that has none is made later, when every instance that
// may hold it had the time to put it back since.
func (k *Keyring) Add(ctx context.Context, tenants ...string) error {
	for _, tenant := range tenants {
		if !synced.IsTenant(tenant) {
			return &ring.Error{Text: fmt.Sprintf("a tenant of %d bytes: want 1 to %d, in UTF-8", len(tenant), ring.MaxTenantBytes)}
		}
	}
	return k.rings.Add(ctx, tenants)
}

// Remove removes tenants from this keyring, and from no store: [Rotator.Destroy] ends a tenant for all.
// When it returns, their keys verify nothing any more, also for tokens that a verifier has cached. It
// does nothing to a keyring of all tenants.
func (k *Keyring) Remove(tenants ...string) {
	if !k.holdsAll() {
		k.rings.Remove(tenants)
	}
}

// Format implements [fmt.Formatter]: every verb prints how many rings there are, and nothing else,
// so that no log holds a key.
func (k *Keyring) Format(f fmt.State, _ rune) {
	if n := k.rings.Len(); n != 1 {
		fmt.Fprintf(f, "keyring of %d tenants", n)
		return
	}
	fmt.Fprint(f, "keyring of one tenant")
}

// ring returns the ring of tenant, or nil if it is not held.
func (k *Keyring) ring(tenant string) *synced.Ring { return k.rings.Ring(tenant) }

// holdsAll reports whether Config leaves it to the store which tenants there are.
func (k *Keyring) holdsAll() bool { return k.rings.HoldsAll() }

// Tenants returns the tenants of [Config.Tenants], with those that [Keyring.Add] has added and without
// those that [Keyring.Remove] has removed, sorted, whether or not the store has a ring of
// them. If that is empty, it returns those that have a ring.
func (k *Keyring) Tenants() []string {
	var tenants []string
	for _, r := range k.rings.All() {
		if !k.holdsAll() || r.Known() {
			tenants = append(tenants, r.Tenant)
		}
	}
	slices.Sort(tenants)
	return tenants
}
