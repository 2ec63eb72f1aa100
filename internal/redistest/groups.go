package redistest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Pair is a primary and its replica.
type Pair struct{ Primary, Replica *Server }

// StartPair starts a primary and its replica, and returns when the replica is in sync.
func StartPair(o Options) (*Pair, error) {
	if o.named() {
		o.Args = append([]string{"--replica-announce-ip", hostname}, o.Args...)
	}
	primary, err := Start(o)
	if err != nil {
		return nil, err
	}
	o.ReplicaOf = primary.Addr()
	replica, err := Start(o)
	if err != nil {
		return nil, errors.Join(err, primary.Stop())
	}
	p := &Pair{Primary: primary, Replica: replica}
	if err := primary.await("to have a replica", primary.hasReplica); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// hasReplica reports whether the server has a replica that counts for min-replicas-to-write.
func (s *Server) hasReplica(ctx context.Context) (bool, error) {
	info, err := s.client.Info(ctx, "replication").Result()
	return err == nil && strings.Contains(info, "state=online") && !strings.Contains(info, "min_slaves_good_slaves:0"), nil
}

// Settled waits until the replica has all data of the primary.
func (p *Pair) Settled(ctx context.Context) error {
	return p.Primary.await("its replica", func(context.Context) (bool, error) {
		mine, err1 := p.Primary.client.Info(ctx, "replication").Result()
		its, err2 := p.Replica.client.Info(ctx, "replication").Result()
		offset := infoField(mine, "master_repl_offset")
		return err1 == nil && err2 == nil && offset != "" && offset == infoField(its, "slave_repl_offset"), nil
	})
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Stop stops both servers.
func (p *Pair) Stop() error { return stopAll(p.Replica, p.Primary) }

// A Sentinel is a [Pair] and three Sentinels, which promote the replica if the
// primary does not answer for half a second.
type Sentinel struct {
	Pair
	Name      string // the name under which the Sentinels know the primary
	Sentinels []*Server
}

const sentinelName = "keyturn"

// StartSentinel starts five processes, and returns when the Sentinels know each other
// and the replica. It takes a few seconds.
func StartSentinel(o Options) (*Sentinel, error) {
	pair, err := StartPair(o)
	if err != nil {
		return nil, err
	}
	s := &Sentinel{Pair: *pair, Name: sentinelName, Sentinels: make([]*Server, 3)}
	host, names := "127.0.0.1", ""
	if o.named() {
		host, names = hostname, "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel announce-ip "+hostname+"\n"
	}
	config := names + "sentinel monitor " + s.Name + " " + host + " " + strconv.Itoa(pair.Primary.port) + " 2\n" +
		"sentinel down-after-milliseconds " + s.Name + " 500\n" +
		"sentinel failover-timeout " + s.Name + " 2000\n"
	err = atOnce(len(s.Sentinels), func(i int) (err error) {
		s.Sentinels[i], err = start(func(int) []string { return []string{"--sentinel"} }, config, o.TLS)
		return err
	})
	if err == nil {
		err = await("Sentinels to know each other", s.complete)
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Sentinel) complete(ctx context.Context) (bool, error) {
	for _, one := range s.Sentinels {
		m, err := one.client.Do(ctx, "SENTINEL", "MASTER", s.Name).StringSlice()
		if err != nil || pairField(m, "num-other-sentinels") != "2" || pairField(m, "num-slaves") != "1" || pairField(m, "flags") != "master" {
			return false, nil
		}
	}
	return true, nil
}

func pairField(pairs []string, name string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == name {
			return pairs[i+1]
		}
	}
	return ""
}

// Addrs returns the addresses of the Sentinels.
func (s *Sentinel) Addrs() []string { return addrs(s.Sentinels) }

// Current returns the address of the primary, as the first Sentinel knows it.
func (s *Sentinel) Current(ctx context.Context) (string, error) {
	at, err := s.Sentinels[0].client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Name).StringSlice()
	if err != nil {
		return "", fmt.Errorf("redistest: %w", err)
	}
	return strings.Join(at, ":"), nil
}

// Failover waits until the Sentinels have promoted the replica. Kill or pause the
// primary first. It takes a few seconds.
func (s *Sentinel) Failover() error {
	return await("a failover", func(ctx context.Context) (bool, error) {
		addr, err := s.Current(ctx)
		if _, port, _ := strings.Cut(addr, ":"); err != nil || port != strconv.Itoa(s.Replica.port) {
			return false, err
		}
		info, err := s.Replica.client.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "role:master"), nil // Sentinel ends the connections of a new primary
	})
}

// Stop stops all five processes.
func (s *Sentinel) Stop() error {
	return errors.Join(stopAll(s.Sentinels...), s.Pair.Stop())
}

// A Cluster is a Redis Cluster of three primaries without replicas. If one is
// unreachable, the others go on serving their slots (cluster-require-full-coverage no).
type Cluster struct {
	Servers  []*Server
	Replicas []*Server // those that AddReplica has added

	options Options
}

const slots = 16384

// StartCluster starts three servers and returns when all of them serve their slots. It
// takes a few seconds.
func StartCluster(o Options) (*Cluster, error) {
	args := []string{
		"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
		"--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
	}
	if o.TLS != nil {
		args = append(args, "--tls-cluster", "yes")
	}
	if o.named() {
		args = append(args, "--cluster-announce-hostname", hostname, "--cluster-preferred-endpoint-type", "hostname")
	}
	o.Args = append(args, o.Args...)
	c := &Cluster{Servers: make([]*Server, 3), options: o}
	err := atOnce(len(c.Servers), func(i int) (err error) {
		c.Servers[i], err = Start(o)
		return err
	})
	if err == nil {
		err = c.join()
	}
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) join() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, s := range c.Servers {
		own := []any{"CLUSTER", "ADDSLOTS"}
		for slot := range slots {
			if slot*len(c.Servers)/slots == i {
				own = append(own, slot)
			}
		}
		err := errors.Join(
			s.Do(ctx, own...),
			s.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1),
			s.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", c.Servers[0].port))
		if err != nil {
			return err
		}
	}
	return await("the Cluster", c.complete)
}

func (c *Cluster) complete(ctx context.Context) (bool, error) {
	for _, s := range slices.Concat(c.Servers, c.Replicas) {
		info, err := s.client.ClusterInfo(ctx).Result()
		if err != nil || infoField(info, "cluster_state") != "ok" ||
			infoField(info, "cluster_slots_ok") != strconv.Itoa(slots) ||
			infoField(info, "cluster_known_nodes") != strconv.Itoa(len(c.Servers)+len(c.Replicas)) {
			return false, nil
		}
	}
	return true, nil
}

// AddReplica adds a replica of one of the servers, and returns it when it has its data and knows who owns
// which slots. If that server dies, the replica takes over after some seconds. A replica that never heard
// of its primary's slots would not: it would take the primary for one without slots.
func (c *Cluster) AddReplica(of int) (*Server, error) {
	s, err := Start(c.options)
	if err != nil {
		return nil, err
	}
	c.Replicas = append(c.Replicas, s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", c.Servers[0].port); err != nil {
		return nil, err
	}
	if err := await("the Cluster to know a replica", c.complete); err != nil {
		return nil, err
	}
	id, err := c.Servers[of].client.Do(ctx, "CLUSTER", "MYID").Text()
	if err != nil {
		return nil, err
	}
	err = await("a server to become a replica", func(ctx context.Context) (bool, error) { // it may not know that one yet
		return s.Do(ctx, "CLUSTER", "REPLICATE", id) == nil, nil
	})
	if err == nil {
		err = s.await("to be in sync", s.inSync)
	}
	return s, err
}

// Addrs returns the addresses of the servers.
func (c *Cluster) Addrs() []string { return addrs(c.Servers) }

// Owner returns the index of the server that owned the key's slot at the start.
func (c *Cluster) Owner(ctx context.Context, key string) (int, error) {
	slot, err := c.Servers[0].client.ClusterKeySlot(ctx, key).Result()
	return int(slot) * len(c.Servers) / slots, err
}

// Stop stops all servers.
func (c *Cluster) Stop() error { return stopAll(append(c.Replicas, c.Servers...)...) }

func addrs(servers []*Server) []string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr())
	}
	return slices.Clip(all)
}

// atOnce calls f with 0 to n-1 at the same time and waits for all calls.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
