package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/drill"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// A drillInstance is an instance of the drill's own, which holds the canary as those of a service do.
// Its connections pass a link that the drill can cut.
type drillInstance struct {
	store    *store
	link     *drill.Link
	heard    *atomic.Bool // something that was published
	keyring  *rotation.Keyring
	signer   *rotation.Signer
	verifier *verifier.Verifier
	tenant   string
}

// openDrillInstance opens an instance. The ring of the tenant need not be there yet.
func openDrillInstance(ctx context.Context, s *ringSession, tenant, name string) (_ *drillInstance, err error) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	i := &drillInstance{link: new(drill.Link), tenant: tenant}
	if i.store, err = openStore(s.url, s.link); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			i.close(ctx)
		}
	}()
	throughLink(i.store.client, i.link)
	i.heard = new(atomic.Bool)
	i.keyring, err = rotation.Open(ctx, hearing{i.store, i.heard}, rotation.Config{
		KEKs: s.keks, Tenants: []string{tenant}, Instance: name, Realm: s.realm, OtherRealms: s.otherRealms, Now: s.now,
		TrustFirstRead: true, // the ring is made after this
	})
	if err != nil {
		return nil, openingError(err)
	}
	if i.signer, err = rotation.NewSigner(i.keyring, rotation.SignerConfig{}); err != nil {
		return nil, ringError(err)
	}
	i.verifier, err = verifier.New(verifier.Config{Now: s.now, Tenants: []verifier.Tenant{{
		ID: tenant, Keys: i.keyring, Algorithms: keystore.Algorithms(), MixedFamilies: true, AnyIssuer: true, AnyAudience: true, Leeway: -1,
	}}})
	if err != nil {
		return nil, ringError(err)
	}
	return i, nil
}

// throughLink makes all connections of a client pass a link.
func throughLink(client redis.UniversalClient, link *drill.Link) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(linkHook{link}) })
		return
	}
	client.AddHook(linkHook{link})
}

// A linkHook is a link as the Redis client takes it.
type linkHook struct{ link *drill.Link }

// DialHook implements [redis.Hook].
func (h linkHook) DialHook(next redis.DialHook) redis.DialHook { return h.link.Dial(next) }

// ProcessHook implements [redis.Hook].
func (h linkHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook implements [redis.Hook].
func (h linkHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A hearing is a store that notes whether its keyring hears the messages of pub/sub.
type hearing struct {
	*store
	heard *atomic.Bool
}

// Listen implements [rotation.Store].
func (h hearing) Listen(ctx context.Context, changed func(bucket int)) error {
	return h.store.Listen(ctx, func(bucket int) {
		h.heard.Store(true)
		changed(bucket)
	})
}

// listens waits until the instance hears messages of pub/sub. It begins to listen after it has opened
// the rings, and would find a change that is made before that with a poll.
func (i *drillInstance) listens(ctx context.Context) {
	for end := time.Now().Add(ringTime / 4); !i.heard.Load() && time.Now().Before(end); {
		if _, err := i.store.nudge(ctx, rotation.BucketOf(i.tenant)); err != nil || !pause(ctx, drillLooks) {
			return // the drill tells that it hears nothing
		}
	}
}

// sign returns a token of the canary.
func (i *drillInstance) sign(ctx context.Context) (string, error) {
	return i.signer.Sign(ctx, i.tenant, map[string]string{"sub": "drill"})
}

// verify says whether a token of the canary is good, and which key signed it.
func (i *drillInstance) verify(ctx context.Context, token string) (kid string, err error) {
	t, err := i.verifier.VerifyTenant(ctx, i.tenant, token)
	if err != nil {
		return "", err
	}
	return t.KeyID(), nil
}

// inSyncSince reports whether the instance has had a good sync after t.
func (i *drillInstance) inSyncSince(t time.Time) bool {
	status, err := i.keyring.Tenant(i.tenant)
	return err == nil && status.LastGood.After(t) && status.Fresh
}

// close ends the instance, and removes what it has said.
func (i *drillInstance) close(ctx context.Context) {
	if i.keyring != nil {
		i.keyring.Close(ctx)
		i.keyring = nil
	}
	i.store.close()
}
