package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
	"github.com/keyturn/keyturn/rotation"
)

// A look gathers what package doctor decides on. It changes nothing.
type look struct {
	*doctorCommand
	session *ringSession
	facts   doctor.Facts
	details bool // findings that are ok count too
	first   bool // no policy was seen yet

	rings     int
	findings  []doctor.Finding // about rings
	instances map[string]doctor.Instance
	looked    atomic.Int64 // rings that were looked at, for the progress
}

// manyRings is up to how many rings each has all its lines.
const manyRings = 20

// look returns what there is to say about a Redis and its rings.
func (c *doctorCommand) look(ctx context.Context, s *ringSession) []doctor.Finding {
	l := &look{doctorCommand: c, session: s, first: true, instances: make(map[string]doctor.Instance)}
	l.facts = doctor.Facts{Timing: doctor.DefaultTiming(), Flags: c.flags(""), HasKEK: s.keks != nil, Now: c.now()}
	l.servers(ctx)
	if l.facts.Unreachable == "" {
		l.walkRings(ctx)
		l.list(ctx)
	}
	for _, in := range l.instances {
		l.facts.Instances = append(l.facts.Instances, in)
	}
	slices.SortFunc(l.facts.Instances, func(a, b doctor.Instance) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(l.findings, func(a, b doctor.Finding) int { return strings.Compare(tenantOf(a), tenantOf(b)) })
	l.facts.Now = c.now()
	return slices.Concat(l.facts.Check(), l.findings)
}

func tenantOf(f doctor.Finding) string {
	if f.Tenant == nil {
		return ""
	}
	return *f.Tenant
}

// servers asks the primaries of themselves.
func (l *look) servers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	cluster, ok := l.session.store.client.(*redis.ClusterClient)
	if !ok {
		client := l.session.store.client.(*redis.Client) // what rediskeys.Open makes otherwise
		s, calls := l.server(ctx, client)
		l.facts.Servers, l.facts.Calls = []doctor.Server{s}, calls
		if s.Err == "" {
			l.rights(ctx, client, false)
		}
	} else {
		l.facts.IsCluster = true
		l.clusterServers(ctx, cluster)
	}
	if !slices.ContainsFunc(l.facts.Servers, func(s doctor.Server) bool { return s.Err == "" }) {
		l.facts.Unreachable = l.whyUnreachable(ctx)
	}
}

// whyUnreachable returns, in the words of the command, why no server answers.
func (l *look) whyUnreachable(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ringTime/4)
	defer cancel()
	_, err := l.session.names(ctx, []int{0})
	switch {
	case err != nil:
		return printable(errorText(err), false)
	case len(l.facts.Servers) > 0:
		return l.facts.Servers[0].Err
	}
	return "no server of the Cluster is known"
}

func (l *look) clusterServers(ctx context.Context, c *redis.ClusterClient) {
	var mu sync.Mutex // guards clients and facts: a Cluster's servers are asked at once
	clients := make(map[string]*redis.Client)
	_ = c.ForEachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
		s, calls := l.server(ctx, client)
		mu.Lock()
		defer mu.Unlock()
		l.facts.Servers = append(l.facts.Servers, s)
		l.facts.Calls = append(l.facts.Calls, calls...)
		clients[s.Name] = client
		return nil
	}) // it fails if no server is known, and then there are none
	slices.SortFunc(l.facts.Servers, func(a, b doctor.Server) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range l.facts.Servers {
		if s.Err != "" {
			continue
		}
		if l.facts.Cluster == nil {
			l.facts.Cluster = new(doctor.Cluster)
			l.rights(ctx, clients[s.Name], true)
		}
		l.slots(ctx, clients[s.Name])
	}
}

// slots asks a server of a Cluster which slots are served. Servers may disagree: then the one
// counts that misses most, since it refuses those keys.
func (l *look) slots(ctx context.Context, client *redis.Client) {
	// CLUSTER SHARDS, of Redis 7.0, would be another right to grant. The client needs this one anyway.
	reply, err := client.Do(ctx, "CLUSTER", "SLOTS").Slice()
	if err != nil {
		l.facts.Cluster.Err = printable(err.Error(), false)
		return
	}
	var ranges []doctor.Slots
	for _, r := range reply { // first slot, last slot, and the servers that have them
		if parts, ok := r.([]any); ok && len(parts) >= 2 {
			from, _ := parts[0].(int64)
			to, _ := parts[1].(int64)
			ranges = append(ranges, doctor.Slots{From: int(from), To: int(to)})
		}
	}
	if missing := doctor.Uncovered(ranges); len(missing) > len(l.facts.Cluster.Missing) {
		l.facts.Cluster.Missing = missing
	}
}

// server asks one server of itself.
func (l *look) server(ctx context.Context, client *redis.Client) (s doctor.Server, calls []time.Duration) {
	s.Name, s.CLI = client.Options().Addr, "redis-cli"
	if host, port, err := net.SplitHostPort(s.Name); err == nil {
		s.CLI += " -h " + host + " -p " + port
	} else {
		s.Name, s.CLI = "the primary", s.CLI+" -h PRIMARY" // behind Sentinel the client does not say which it is
	}
	if client.Options().TLSConfig != nil {
		s.CLI += " --tls"
	}
	for range 5 {
		begin := time.Now()
		if err := ping(ctx, client); err != nil && !isAnswer(err) {
			s.Err = printable(err.Error(), false)
			return s, nil
		}
		calls = append(calls, time.Since(begin))
	}
	calls = calls[1:] // the first one had to connect
	if info, err := client.Info(ctx).Result(); err == nil {
		s.Info = infoFields(info)
	}
	if port := s.Info["tcp_port"]; port != "" && !strings.Contains(s.CLI, " -p ") {
		s.CLI = strings.Replace(s.CLI, "PRIMARY", "PRIMARY -p "+port, 1)
	}
	s.Sent = l.now()
	if t, err := client.Time(ctx).Result(); err == nil {
		s.Time = t
	}
	s.Received = l.now()
	s.Config = configOf(ctx, client)
	return s, calls
}

// ping calls a server, which may hang.
func ping(ctx context.Context, client *redis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, ringTime/4)
	defer cancel()
	return client.Ping(ctx).Err()
}

// isAnswer reports whether an error is the answer of a server that works for this user. PING is refused
// by the ACL, and where Redis cannot save (MISCONF); then the other checks say what is wrong.
func isAnswer(err error) bool {
	for _, prefix := range []string{"NOAUTH", "WRONGPASS", "LOADING"} {
		if redis.HasErrorPrefix(err, prefix) {
			return false
		}
	}
	return errors.As(err, new(redis.Error))
}

func isForbidden(err error) bool { return redis.HasErrorPrefix(err, "NOPERM") }

func infoFields(info string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// configOf returns the settings that matter, or nil if the user may not read them.
func configOf(ctx context.Context, client *redis.Client) map[string]string {
	if may, err := mayCall(ctx, client, "CONFIG", "GET", "save"); err == nil && !may {
		return nil // tried, it would be in the ACL LOG
	}
	pipe := client.Pipeline()
	var cmds []*redis.MapStringStringCmd
	for _, name := range []string{"save", "min-replicas-to-write", "min-replicas-max-lag", "cluster-require-full-coverage"} {
		cmds = append(cmds, pipe.ConfigGet(ctx, name))
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	all := make(map[string]string)
	for _, cmd := range cmds {
		values, err := cmd.Result()
		if err != nil {
			return nil
		}
		maps.Copy(all, values)
	}
	return all
}

// rights asks the server what the user may do.
func (l *look) rights(ctx context.Context, client *redis.Client, inCluster bool) {
	r := &l.facts.Rights
	r.User = shellWord(ownName(ctx, client, false))
	got, err := askRights(ctx, client, "", doctor.Calls(inCluster))
	if err != nil {
		r.Err, r.Old = printable(err.Error(), false), isOldScript(err)
		return
	}
	r.User, r.Denied = shellWord(got.user), got.denied
}

// isOldScript reports whether scripts of a server cannot ask what their user may do.
func isOldScript(err error) bool {
	return !isForbidden(err) && (strings.Contains(err.Error(), "acl_check_cmd") || isUnknownCommand(err))
}

// isUnknownCommand reports whether a server does not know a command, or not this form of it.
func isUnknownCommand(err error) bool {
	return !isForbidden(err) && strings.Contains(strings.ToLower(err.Error()), "unknown")
}

// walkRings looks at the rings, and at the instances that hold them.
func (l *look) walkRings(ctx context.Context) {
	w, err := l.session.walk(ctx, l.tenant)
	if err != nil {
		l.facts.Unnamed, l.facts.UnnamedWhy = rotation.Buckets, printable(err.Error(), false)
		return
	}
	l.facts.Unnamed = w.unnamed
	if w.unnamed > 0 {
		l.facts.UnnamedWhy = printable(errorText(w.why), false)
	}
	l.rings = w.count()
	l.details = l.rings <= manyRings
	stop := l.tellProgress(ctx)
	defer stop()
	switch {
	case !l.facts.HasKEK:
		for _, tenants := range w.buckets {
			l.acks(ctx, nil, tenants[0])
		}
	default:
		w.each(ctx, l.bucket)
	}
	if len(w.buckets) == 0 {
		l.acks(ctx, nil, "")
	}
	l.summary(w)
}

// summary says how many rings were looked at.
func (l *look) summary(w *ringWalk) {
	f := doctor.Finding{Check: "rings", Level: doctor.OK, Found: fmt.Sprintf("%s looked at", countRings(l.rings))}
	do := ""
	switch {
	case l.rings == 0 && w.unnamed == 0:
		f.Found, do = "there are no rings", `if there were any: docs/operations.md, "Redis came back empty"; else: keyturn keys create `+l.flags("")
	case !l.facts.HasKEK:
		f.Level, f.Found = doctor.Unknown, fmt.Sprintf("without a KEK %s cannot be opened", countRings(l.rings))
		do = "give --kek-file, or set " + envKEKFile
	}
	if do != "" {
		f.Do = &do
	}
	l.findings = append(l.findings, f)
}

// bucket looks at the rings of tenants that are all in one bucket.
func (l *look) bucket(ctx context.Context, k *rotation.Keyring, tenants []string, err error) {
	var rotator *rotation.Rotator
	if err == nil {
		rotator, err = rotation.NewRotator(k)
	}
	instances := l.acks(ctx, rotator, tenants[0])
	for _, tenant := range tenants {
		r := l.ringOf(ctx, k, rotator, tenant, err)
		r.Instances, r.Only = instances, l.rings == 1 && !l.tenant.given
		for _, f := range r.Check() {
			if l.details || f.Level != doctor.OK {
				l.findings = append(l.findings, f)
			}
		}
		l.looked.Add(1)
	}
}

// ringOf gathers what is known of one ring.
func (l *look) ringOf(ctx context.Context, k *rotation.Keyring, rotator *rotation.Rotator, tenant string, err error) *doctor.Ring {
	seen := see(k, tenant, err)
	r := &doctor.Ring{Tenant: tenant, View: seen.status.Ring, Accepted: seen.status.Accepted, Dead: seen.state() == stateDestroyed, Flags: l.flags(tenant), Now: l.now()}
	if seen.err != nil {
		r.Err = seen.oneLine()
		return r
	}
	if len(r.View.Keys) == 0 {
		return r
	}
	timing := newestTiming(r.View)
	if l.first {
		l.facts.Timing = doctor.Timing{ClockSkew: timing.ClockSkew, Dwell: timing.Dwell, Freshness: timing.Freshness}
		l.first = false
	}
	l.facts.Timing = l.facts.Timing.Least(timing)
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	for range 3 { // a ring with a short Freshness has a short deadline, and one slow answer says little
		if r.Sealed, _, err = rotator.Rekey(ctx, tenant, rotation.DryRun); err == nil {
			break
		}
	}
	if err != nil {
		r.KEKErr = printable(errorText(err), false)
	}
	if r.Sealed.Primary != "" {
		l.facts.Primary = r.Sealed.Primary
	}
	return r
}

// acks notes the instances that have acknowledged the bucket of tenant, and returns those whose
// acknowledgements were opened. rotator is nil if they cannot be.
func (l *look) acks(ctx context.Context, rotator *rotation.Rotator, tenant string) (read []doctor.Instance) {
	ctx, cancel := context.WithTimeout(ctx, ringTime)
	defer cancel()
	bucket := rotation.BucketOf(tenant)
	raw, _, err := l.session.store.Acks(ctx, bucket)
	opened, again := []rotation.Ack(nil), raw
	if err == nil && rotator != nil {
		opened, err = rotator.Acks(ctx, rotation.Receipt{Tenant: tenant})
	}
	if err == nil && rotator != nil {
		again, _, err = l.session.store.Acks(ctx, bucket)
	}
	if err != nil {
		l.facts.AcksErr = printable(errorText(err), false)
		return nil
	}
	raw = slices.DeleteFunc(raw, rotation.RawAck.Parted) // of no instance; the instances watch for forged ones
	if rotator == nil {
		for _, a := range raw {
			l.note(doctor.Instance{Name: printable(a.Instance, false), At: a.At()})
		}
		return nil
	}
	for _, a := range opened {
		in := doctor.Instance{Name: printable(a.Instance, false), At: a.At, Opened: true, InSync: !a.GoodSince.IsZero(), KEKs: a.KEKs}
		for i := range in.KEKs {
			in.KEKs[i] = printable(in.KEKs[i], false)
		}
		for _, alg := range a.Verifies {
			in.Verifies = append(in.Verifies, string(alg))
		}
		l.note(in)
		read = append(read, in)
	}
	for _, a := range raw {
		same := func(b rotation.RawAck) bool { return b.Instance == a.Instance }
		if !slices.ContainsFunc(opened, func(b rotation.Ack) bool { return b.Instance == a.Instance }) && slices.ContainsFunc(again, same) {
			l.facts.Forged++ // it did not go meanwhile, and does not open
		}
	}
	return read
}

// note adds what one bucket says of an instance.
func (l *look) note(in doctor.Instance) {
	if before, known := l.instances[in.Name]; known {
		sync := in.InSync && before.InSync
		if before.Opened && !in.Opened || before.Opened == in.Opened && before.At.After(in.At) {
			in = before
		}
		in.InSync = sync || in.Opened != before.Opened && in.InSync
	}
	l.instances[in.Name] = in
}

// tellProgress shows on stderr how far the command is.
func (l *look) tellProgress(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	p := &progress{out: l.stderr, terminal: isTerminal(l.stderr)}
	var wg sync.WaitGroup
	wg.Go(func() {
		p.run(ctx, func() string { return fmt.Sprintf("%d of %s looked at", l.looked.Load(), countRings(l.rings)) })
	})
	return func() { cancel(); wg.Wait() }
}
