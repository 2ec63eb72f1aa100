package main

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// keepBackups makes backups of all rings, and restores one of them every few seconds, until ctx ends. An
// operator may do that at any time, also while Redis lacks something: no token is rejected for it. The
// backups are of up to a minute before, so most of their keys have gone since.
func (f *fleet) keepBackups(ctx context.Context) {
	l := newLink(f.servers.resolve)
	client := l.client(f.servers.address())
	defer l.stop()
	defer client.Close()
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		f.tally.note("no backups: %v", err)
		return
	}
	const most = 20
	var kept [][]rotation.Snapshot // of all tenants each
	for sleep(ctx, f.between(time.Second, 3*time.Second)) == nil {
		if len(kept) > 0 {
			f.restore(ctx, kept[f.intN(len(kept))])
		}
		calling, cancel := context.WithTimeout(ctx, f.pace.deadline)
		kept = append(kept, store.Load(calling, tenantNames()))
		cancel()
		kept = kept[max(0, len(kept)-most):]
	}
}

// restore restores the ring of a random tenant. saved has those of all tenants.
func (f *fleet) restore(ctx context.Context, saved []rotation.Snapshot) {
	from := f.intN(len(tenants))
	if s := saved[from]; s.Err == nil && len(s.Fields) > 0 {
		_, _, err := f.random(1)[0].rotator.Restore(ctx, tenants[from].name, s)
		f.tally.restored(err)
	}
}
