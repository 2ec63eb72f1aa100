package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
)

// servers are the Redis servers of one run.
type servers interface {
	// address is the address that instances are given, and resolve returns the server that
	// an address stands for now.
	address() address
	resolve(addr string) string
	Stop() error
}

// An address is that of one server, of Sentinels, or of a Cluster.
type address struct {
	addrs   []string
	master  string
	cluster bool
}

// primary is a name that stands for the server that is the primary now, like a service's name in
// DNS.
const primary = "primary:6379"

// single is one server, which does not save its data.
type single struct{ *redistest.Server }

func startSingle(options) (servers, error) {
	s, err := redistest.Start(redistest.Options{})
	return single{s}, err
}

func (single) address() address        { return address{addrs: []string{primary}} }
func (s single) resolve(string) string { return s.Addr() }

// A pair is a primary and its replica, with a proxy between them.
type pair struct {
	between *redistest.Proxy

	mu      sync.Mutex
	primary *redistest.Server
	replica *redistest.Server
}

func startPair(options) (servers, error) {
	p := new(pair)
	var err error
	if p.primary, err = redistest.Start(redistest.Options{}); err != nil {
		return nil, err
	}
	if p.between, err = redistest.StartProxy(p.primary.Addr()); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if p.replica, err = redistest.Start(redistest.Options{ReplicaOf: p.between.Addr()}); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (*pair) address() address { return address{addrs: []string{primary}} }

func (p *pair) resolve(string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.primary.Addr()
}

// promote makes the replica the primary after the primary was killed.
func (p *pair) promote(ctx context.Context) error {
	err := p.replica.Promote(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.primary, p.replica = p.replica, p.primary
	return err
}

// follow brings the killed server back as the replica.
func (p *pair) follow(ctx context.Context) error {
	if err := p.between.Stop(); err != nil {
		return err
	}
	var err error
	if p.between, err = redistest.StartProxy(p.primary.Addr()); err != nil {
		return err
	}
	if err := p.replica.RestartEmpty(); err != nil {
		return err
	}
	return p.replica.Follow(ctx, p.between.Addr())
}

func (p *pair) Stop() error {
	var errs []error
	for _, s := range []*redistest.Server{p.primary, p.replica} {
		if s != nil {
			errs = append(errs, s.Stop())
		}
	}
	if p.between != nil {
		errs = append(errs, p.between.Stop())
	}
	return errors.Join(errs...)
}

// sentinel is a pair that three Sentinels watch.
type sentinel struct{ *redistest.Sentinel }

func startSentinel(options) (servers, error) {
	s, err := redistest.StartSentinel(redistest.Options{})
	return sentinel{s}, err
}

func (s sentinel) address() address           { return address{addrs: s.Addrs(), master: s.Name} }
func (s sentinel) resolve(addr string) string { return addr }

// A cluster has three primaries. One of them may have a replica.
type cluster struct {
	*redistest.Cluster
	owner   int // the index of the server that has the first tenant's bucket
	master  *redistest.Server
	replica *redistest.Server
}

func (c *cluster) address() address           { return address{addrs: c.Addrs(), cluster: true} }
func (c *cluster) resolve(addr string) string { return addr }

func startCluster(options) (servers, error) { return newCluster(redistest.Options{Keep: true}) }

func newCluster(o redistest.Options) (*cluster, error) {
	all, err := redistest.StartCluster(o)
	if err != nil {
		return nil, err
	}
	c := &cluster{Cluster: all}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if c.owner, err = all.Owner(ctx, logKey(tenants[0].name)); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.master = all.Servers[c.owner]
	return c, nil
}

// startClusterReplica runs a Cluster in which the primary of the first tenant has a
// replica.
func startClusterReplica(options) (servers, error) {
	c, err := newCluster(redistest.Options{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.addReplica(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *cluster) addReplica(ctx context.Context) (err error) {
	id, err := c.master.Client().ClusterMyID(ctx).Result()
	if err != nil {
		return err
	}
	c.replica, err = redistest.Start(redistest.Options{Args: []string{
		"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
	}})
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(c.master.Addr(), ":")
	if err := c.replica.Do(ctx, "CLUSTER", "MEET", host, port); err != nil {
		return err
	}
	err = await(ctx, "the replica to know its primary", func() bool { return c.replica.Do(ctx, "CLUSTER", "REPLICATE", id) == nil })
	if err != nil {
		return err
	}
	return await(ctx, "all to know the replica", func() bool { return c.known(ctx) && isReplica(ctx, c.replica) })
}

// known reports whether every server knows of the replica.
func (c *cluster) known(ctx context.Context) bool {
	for _, s := range c.Servers {
		nodes, err := s.Client().ClusterNodes(ctx).Result()
		if err != nil || strings.Count(nodes, "\n") != len(c.Servers)+1 || !strings.Contains(nodes, "slave") {
			return false
		}
	}
	return true
}

func (c *cluster) Stop() error {
	err := c.Cluster.Stop()
	if c.master != nil { // may be the server that was the replica
		err = errors.Join(err, c.master.Stop())
	}
	if c.replica != nil {
		err = errors.Join(err, c.replica.Stop())
	}
	return err
}

func isReplica(ctx context.Context, s *redistest.Server) bool {
	return info(ctx, s, "role:slave") && info(ctx, s, "master_link_status:up")
}

func isPrimary(ctx context.Context, s *redistest.Server) bool { return info(ctx, s, "role:master") }

func info(ctx context.Context, s *redistest.Server, says string) bool {
	text, err := s.Client().Info(ctx, "replication").Result()
	return err == nil && strings.Contains(text, says)
}

// patience is how long await waits at most.
const patience = 2 * time.Minute

// await calls done until it returns true.
func await(ctx context.Context, what string, done func() bool) error {
	return awaitEvery(ctx, 5*time.Millisecond, patience, what, done)
}

// awaitEvery calls done now and then until it returns true.
func awaitEvery(ctx context.Context, every, patience time.Duration, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !done() {
		if err := sleep(ctx, every); err != nil {
			return fmt.Errorf("waited for %s: %w", what, err)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// logKey and ringKey return the names of a tenant's keys, see docs/formats.md.
func logKey(tenant string) string { return fmt.Sprintf("kt:{%d}:log", rotation.BucketOf(tenant)) }
func ringKey(tenant string) string {
	return fmt.Sprintf("kt:{%d}:ring:%s", rotation.BucketOf(tenant), tenant)
}
