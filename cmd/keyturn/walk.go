package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// A ringWalk reads the rings of all tenants, one bucket after the other, so that a hundred thousand
// of them never lie in memory at once.
type ringWalk struct {
	*ringSession
	buckets [][]string // the names of the tenants, sorted in each bucket
	unnamed int        // buckets whose names could not be read, as when a server of a Cluster is away
	why     error      // of them

	failing time.Duration // how long calls took that failed
	last    error         // of those calls
}

// walk returns a walk over the rings of the tenants that the store names, or of one tenant. The error
// says why no name can be read.
func (s *ringSession) walk(ctx context.Context, tenant *option[string]) (*ringWalk, error) {
	w := &ringWalk{ringSession: s}
	if tenant.given {
		w.buckets = [][]string{{tenant.value}}
		return w, nil
	}
	indexes := make([]int, rotation.Buckets)
	for i := range indexes {
		indexes[i] = i
	}
	all, err := s.names(ctx, indexes)
	if err != nil {
		all, err = w.namesApart(ctx, err)
	}
	if err != nil {
		return nil, ringError(&rotation.Error{Kind: keystore.ErrUnavailable, Err: err})
	}
	for _, tenants := range all {
		if len(tenants) > 0 {
			slices.Sort(tenants)
			w.buckets = append(w.buckets, tenants)
		}
	}
	return w, nil
}

func (s *ringSession) names(ctx context.Context, buckets []int) ([][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime/2)
	defer cancel()
	return s.store.Tenants(ctx, buckets)
}

// namesApart reads the names of each bucket by itself, after all at once have failed: one key of
// another type, or one server of a Cluster that is away, hides its own names alone. Several are asked
// at once, since each call to a server that is away takes its time.
func (w *ringWalk) namesApart(ctx context.Context, err error) ([][]string, error) {
	if _, inCluster := w.store.client.(*redis.ClusterClient); !inCluster && (errors.Is(err, rediskeys.ErrTimeout) || errors.Is(err, rediskeys.ErrUnreachable)) {
		return nil, err // there is one server, and it is away
	}
	ctx, cancel := context.WithTimeout(ctx, ringTime/2)
	defer cancel()
	names, errs := make([][]string, rotation.Buckets), make([]error, rotation.Buckets)
	const atOnce = 32
	var wg sync.WaitGroup
	for first := range atOnce {
		wg.Go(func() {
			for i := first; i < rotation.Buckets; i += atOnce {
				all, err := w.names(ctx, []int{i})
				if err == nil {
					names[i] = all[0]
				}
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			w.unnamed, w.why = w.unnamed+1, err
		}
	}
	if w.unnamed == rotation.Buckets {
		return nil, err
	}
	return names, nil
}

// count returns how many tenants there are.
func (w *ringWalk) count() (n int) {
	for _, tenants := range w.buckets {
		n += len(tenants)
	}
	return n
}

// A ringUse works on the rings of tenants that are all in one bucket: with a keyring of them, or with
// the reason that there is none.
type ringUse func(ctx context.Context, k *rotation.Keyring, tenants []string, err error)

// each calls use for the tenants of each bucket. It ends early with ctx.
//
// A keyring does not open if none of its rings does. Then each ring is tried by itself, because each
// may have a reason of its own.
func (w *ringWalk) each(ctx context.Context, use ringUse) {
	for _, tenants := range w.buckets {
		if ctx.Err() != nil {
			return
		}
		if w.visit(ctx, tenants, use) == nil {
			continue
		}
		for i := range tenants {
			if err := w.visit(ctx, tenants[i:i+1], use); err != nil {
				use(ctx, nil, tenants[i:i+1], openingError(err))
			}
		}
	}
}

// visit calls use with a keyring of tenants. If it cannot be opened, it returns the reason instead.
//
// While Redis hangs, each call fails late. Such calls take half of ringTime together, and after that the
// other tenants get the last reason without a call.
func (w *ringWalk) visit(ctx context.Context, tenants []string, use ringUse) error {
	if w.failing > ringTime/2 {
		return w.last
	}
	begin := time.Now()
	k, err := w.openRings(ctx, tenants...)
	if err != nil {
		if !server.IsSealError(err) {
			w.failing, w.last = w.failing+time.Since(begin), err
		}
		return err
	}
	defer k.Close(context.WithoutCancel(ctx))
	use(ctx, k, tenants, nil)
	return nil
}

// A seenRing is what a walk found of one tenant.
type seenRing struct {
	tenant string
	status rotation.TenantStatus
	err    error // why the ring, or a part of it, could not be read; nil if it was read
}

// The states of a ring, as "keys list --json" names them.
const (
	stateSigning    = "signing"
	stateNoSigner   = "no_signer"
	stateIncomplete = "incomplete" // a part of it cannot be opened: it may be a revocation
	stateUnreadable = "unreadable"
	stateDestroyed  = "destroyed"
	stateNoRing     = "no_ring"
)

// see returns what a keyring has of a tenant, or the reason that there is no keyring.
func see(k *rotation.Keyring, tenant string, err error) seenRing {
	r := seenRing{tenant: tenant, err: err}
	if err == nil {
		r.status, err = k.Tenant(tenant)
		switch s := &r.status; {
		case err != nil:
			r.err = ringError(err)
		case s.Err == nil || s.Fresh:
		case len(s.Ring.Keys) > 0 || server.IsSealError(s.Err) || errors.Is(s.Err, keystore.ErrUnavailable):
			r.err = ringError(s.Err)
		}
	}
	return r
}

func (r *seenRing) state() string {
	switch keys := len(r.status.Ring.Keys); {
	case r.err != nil && keys > 0:
		return stateIncomplete
	case r.err != nil:
		return stateUnreadable
	case r.status.Ring.Dead:
		return stateDestroyed
	case keys == 0:
		return stateNoRing
	case r.signer() == nil:
		return stateNoSigner
	}
	return stateSigning
}

// oneLine returns the reason that the ring could not be read.
func (r *seenRing) oneLine() string { return strings.ReplaceAll(r.err.Error(), "\n", " ") }
