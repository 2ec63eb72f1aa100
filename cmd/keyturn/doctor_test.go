package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// doctor runs the doctor on c's Redis, and returns what it found.
func (c *ringCLI) doctor(code int, flags ...string) doctored {
	c.t.Helper()
	r := c.run(append([]string{"doctor", "--json"}, flags...)...).wantCode(c.t, code)
	var all []doctor.Finding
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil || strings.Count(r.stdout, "\n") != 1 || len(all) == 0 {
		c.t.Fatalf("doctor --json = %s, %v", r.stdout, err)
	}
	return doctored{c.t, all}
}

// doctored is what the doctor found.
type doctored struct {
	t        *testing.T
	findings []doctor.Finding
}

// want checks that there is a finding of that check and level, with those phrases in its words or in
// what it says to do. Whatever is not ok has to say what to do.
func (d doctored) want(check string, level doctor.Level, phrases ...string) {
	d.t.Helper()
	for _, f := range d.findings {
		text := f.Found
		if f.Do != nil {
			text += " -> " + *f.Do
		}
		if f.Level != doctor.OK && f.Do == nil {
			d.t.Errorf("%+v does not say what to do", f)
		}
		missing := slices.ContainsFunc(phrases, func(p string) bool { return !strings.Contains(text, p) })
		if f.Check == check && f.Level == level && !missing {
			return
		}
	}
	d.t.Errorf("no %s finding of %s with %q", level, check, phrases)
	for _, f := range d.findings {
		do := ""
		if f.Do != nil {
			do = *f.Do
		}
		d.t.Logf("%s %s: %s -> %s", f.Level, f.Check, f.Found, do)
	}
}

// durable are the options of a server that persists, and does not wait for the disk with each change.
func durable() redistest.Options { return redistest.Options{Args: []string{"--appendonly", "yes"}} }

// A patient is a Redis of a test, with a command for it.
type patient struct {
	*ringCLI
	server *redistest.Server
}

func newPatient(t *testing.T, o redistest.Options) *patient {
	t.Helper()
	redistest.Need(t)
	t.Parallel()
	s := redistest.Run(t, o)
	return &patient{newRingCLI(t, s.Addr()), s}
}

func (p *patient) do(args ...any) {
	p.t.Helper()
	if err := p.server.Do(p.t.Context(), args...); err != nil {
		p.t.Fatal(err)
	}
}

// contents returns every key of the server, with its value.
func (p *patient) contents() map[string]string {
	p.t.Helper()
	all := make(map[string]string)
	for _, key := range p.server.Client().Keys(p.t.Context(), "*").Val() {
		all[key] = p.server.Client().Dump(p.t.Context(), key).Val()
	}
	if len(all) == 0 {
		p.t.Fatal("the server is empty")
	}
	return all
}

// cli returns how redis-cli reaches the server, as the doctor says it.
func (p *patient) cli() string {
	return "redis-cli -h 127.0.0.1 -p " + strings.TrimPrefix(p.server.Addr(), "127.0.0.1:")
}

func TestDoctorHealthy(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	pair := redistest.RunPair(t, durable())
	p := &patient{newRingCLI(t, pair.Primary.Addr()), pair.Primary}
	p.do("CONFIG", "SET", "min-replicas-to-write", "1")
	p.run("keys", "create").wantCode(t, exitYes)
	before := p.contents()
	d := p.doctor(exitYes)
	if after := p.contents(); !maps.Equal(before, after) {
		t.Errorf("it changed what Redis has: %q, before %q", after, before)
	}
	for check, phrase := range map[string]string{
		"reach": p.server.Addr(), "version": "Redis ", "persistence": "appendonly yes", "replicas": "1 replica", "eviction": "noeviction",
		"clock": "agree to within", "rights": "user default may", "rings": "one ring looked at",
		"ring": "it opens", "rotation": "the next rotation is in 29 days", "outage": "Redis may be away for 24 hours before signing is at risk", "kek": "it is under KEK",
	} {
		d.want(check, doctor.OK, phrase)
	}
	r := p.run("doctor").wantCode(t, exitYes, `tenant "default": it opens`)
	for line := range strings.Lines(r.stdout) {
		if level, _, _ := strings.Cut(line, " "); level != "ok" && level != "warn" {
			t.Errorf("a line of a healthy Redis: %s", line)
		}
	}
}

func TestDoctorPersistence(t *testing.T) {
	p := newPatient(t, redistest.Options{Args: []string{"--enable-protected-configs", "yes"}})
	p.doctor(exitNo).want("persistence", doctor.Bad, "after a restart Redis is empty", p.cli()+" CONFIG SET appendonly yes")
	p.do("CONFIG", "SET", "save", "900 1")
	p.doctor(exitYes).want("persistence", doctor.Warn, `save "900 1"`, p.cli()+" CONFIG SET appendonly yes")
	p.do("CONFIG", "SET", "appendonly", "yes")
	p.doctor(exitYes).want("persistence", doctor.OK)
	p.do("CONFIG", "SET", "appendonly", "no")
	p.do("CONFIG", "SET", "dbfilename", "..") // a folder, so that it cannot save
	p.do("BGSAVE")
	wait(t, func() bool {
		return strings.Contains(p.server.Client().Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
	})
	p.doctor(exitNo).want("persistence", doctor.Bad, "could not save its last dump", p.cli()+" BGSAVE")
}

func TestDoctorReplicas(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	pair := redistest.RunPair(t, durable())
	p := &patient{newRingCLI(t, pair.Primary.Addr()), pair.Primary}
	p.doctor(exitNo).want("replicas", doctor.Bad, "min-replicas-to-write is 0", p.cli()+" CONFIG SET min-replicas-to-write 1")
	p.do("CONFIG", "SET", "min-replicas-to-write", "1")
	p.doctor(exitYes).want("replicas", doctor.OK, "after 10 s")
	p.run("keys", "create", "--dwell", "5s").wantCode(t, exitYes)
	p.doctor(exitNo).want("replicas", doctor.Bad, "min-replicas-max-lag is 10s", "Dwell of a ring 5s", p.cli()+" CONFIG SET min-replicas-max-lag 4")
	p.do("CONFIG", "SET", "min-replicas-max-lag", "4")
	p.doctor(exitYes).want("replicas", doctor.OK)

	// The replica's address is not that of a primary.
	replica := newRingCLI(t, pair.Replica.Addr())
	replica.kek = p.kek
	replica.doctor(exitNo).want("role", doctor.Bad, "a replica, whose answers are old", "give the address of the primary, "+p.server.Addr())

	pair.Replica.Kill()
	wait(t, func() bool {
		return strings.Contains(p.server.Client().Info(t.Context(), "replication").Val(), "min_slaves_good_slaves:0")
	})
	p.doctor(exitNo).want("replicas", doctor.Bad, "Redis refuses all changes", "bring its replicas back")
	p.do("CONFIG", "SET", "min-replicas-to-write", "0")
	p.doctor(exitYes).want("replicas", doctor.Warn, "there is no replica", "CONFIG SET min-replicas-to-write 1")
}

func TestDoctorEviction(t *testing.T) {
	p := newPatient(t, durable())
	do := p.cli() + " CONFIG SET maxmemory-policy noeviction"
	p.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	p.doctor(exitYes).want("eviction", doctor.Warn, "that of a cache", do)
	p.do("CONFIG", "SET", "maxmemory", "100mb")
	p.doctor(exitNo).want("eviction", doctor.Bad, "allkeys-lru", "throws rings away", do)
	p.do("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
	p.doctor(exitYes).want("eviction", doctor.Warn, "volatile-ttl", do)
	p.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	p.do("SET", "ballast", strings.Repeat("x", 20<<20))
	p.do("CONFIG", "SET", "maxmemory", "24mb")
	p.doctor(exitYes).want("eviction", doctor.Warn, "% full", p.cli()+" CONFIG SET maxmemory ")
}

// The user has the rights that the pages name, and lacks in turn each that the doctor needs, or the
// library.
func TestDoctorRights(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create").wantCode(t, exitYes)
	documented := []any{"~kt:*", "&kt:*"}
	for _, call := range doctor.Calls(false) {
		documented = append(documented, "+"+call.Command)
	}
	user := func(more ...any) {
		p.t.Helper()
		p.do("ACL", "DELUSER", "clerk")
		p.do(slices.Concat([]any{"ACL", "SETUSER", "clerk", "on", ">pw-hush"}, documented, more)...)
	}
	admin := p.url
	p.url = "redis://clerk:pw-hush@" + p.server.Addr()
	user()
	d := p.doctor(exitYes)
	d.want("rights", doctor.OK, "user clerk may call all") // a script says it
	d.want("persistence", doctor.OK)                       // INFO says it
	d.want("ring", doctor.OK)
	p.do("CONFIG", "SET", "appendonly", "no")
	p.doctor(exitCannotTell).want("persistence", doctor.Unknown, p.cli()+" ACL SETUSER clerk '+info' '+config|get'")
	p.do("CONFIG", "SET", "appendonly", "yes")

	user("-xadd")
	p.doctor(exitNo).want("rights", doctor.Bad, "may not call xadd", "keyturn keys acl --user clerk")
	tools := []any{"+acl|whoami", "+acl|dryrun", "+config|get"}
	user(tools...)
	p.doctor(exitYes).want("rights", doctor.OK, "user clerk may call all")
	user(append(tools, "-xadd", "-hdel")...)
	p.doctor(exitNo).want("rights", doctor.Bad, "may not call hdel, xadd", p.cli()+" ACL SETUSER clerk '+hdel' '+xadd'")
	user(append(tools, "resetchannels")...)
	p.doctor(exitNo).want("rights", doctor.Bad, "publish, subscribe", "'&kt:*'")
	user(append(tools, "resetkeys", "~other:*")...)
	p.doctor(exitNo).want("rights", doctor.Bad, "'~kt:*'")
	user(append(tools, "-info", "-time")...)
	d = p.doctor(exitNo)
	d.want("rights", doctor.Bad, "may not call info, time", "'+info' '+time'")
	for _, check := range []string{"version", "replicas", "eviction", "persistence"} {
		d.want(check, doctor.Unknown, "+info")
	}
	d.want("clock", doctor.Unknown, "+time")
	if strings.Contains(p.said.String(), "pw-hush") {
		t.Error("the password is in the output")
	}
	p.url = admin
}

func TestDoctorClock(t *testing.T) {
	p := newPatient(t, durable())
	p.doctor(exitYes).want("clock", doctor.OK)
	for offset, phrase := range map[time.Duration]string{time.Hour: "ahead of that of Redis", -time.Hour: "behind that of Redis"} {
		p.now = func() time.Time { return time.Now().Add(offset) }
		p.doctor(exitNo).want("clock", doctor.Bad, phrase, "ClockSkew of a ring is 5s", "chronyc tracking")
	}
	p.now = func() time.Time { return time.Now().Add(4 * time.Second) }
	p.doctor(exitYes).want("clock", doctor.Warn, "more than half of ClockSkew", "NTP")
}

func TestDoctorLatency(t *testing.T) {
	p := newPatient(t, durable())
	proxy := redistest.RunProxy(t, p.server.Addr())
	p.run("keys", "create", "--freshness", "15s").wantCode(t, exitYes)
	p.url = "redis://" + proxy.Addr()
	proxy.Delay(150 * time.Millisecond)
	p.doctor(exitYes).want("latency", doctor.Warn, "instances wait for 500ms at most", "--latency")
	proxy.Delay(510 * time.Millisecond)
	p.doctor(exitNo).want("latency", doctor.Bad, "they are out of sync", "SLOWLOG GET")
}

func TestDoctorUnreachable(t *testing.T) {
	p := newPatient(t, redistest.Options{})
	p.do("CONFIG", "SET", "requirepass", "right")
	p.url = "redis://:wrong-hush@" + p.server.Addr()
	d := p.doctor(exitCannotTell)
	d.want("reach", doctor.Unknown, "does not accept the user or the password")
	if strings.Contains(p.said.String(), "hush") {
		t.Error("the password is in the output")
	}
	p.url = "redis://" + closedPort(t)
	p.doctor(exitCannotTell).want("reach", doctor.Unknown, "cannot be reached")
	if err := p.server.Pause(); err != nil {
		t.Fatal(err)
	}
	p.url = "redis://" + p.server.Addr()
	begin := time.Now()
	p.doctor(exitCannotTell).want("reach", doctor.Unknown, "did not answer in time")
	if d := time.Since(begin); d > ringTime {
		t.Errorf("with a Redis that hangs: %v", d)
	}
}

func TestDoctorCluster(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	cluster := redistest.RunCluster(t, durable())
	first := cluster.Servers[0]
	p := &patient{newRingCLI(t, first.Addr()), first}
	p.doctor(exitNo).want("cluster", doctor.Bad, "part of a Cluster", "give redis-cluster://")

	p.url = "redis-cluster://" + strings.Join(cluster.Addrs(), ",")
	p.doctor(exitYes).want("cluster", doctor.OK, "all slots are served")
	p.do("CONFIG", "SET", "cluster-require-full-coverage", "yes")
	p.doctor(exitYes).want("cluster", doctor.Warn, p.cli()+" CONFIG SET cluster-require-full-coverage no")
	p.do("CONFIG", "SET", "cluster-require-full-coverage", "no")
	p.do("CLUSTER", "DELSLOTS", 0, 1, 2)
	p.doctor(exitNo).want("cluster", doctor.Bad, "no server has 3 of 16384 slots, such as 0 to 2", "redis-cli --cluster fix 127.0.0.1:")
	p.do("CLUSTER", "ADDSLOTS", 0, 1, 2)

	gone := cluster.Servers[2]
	gone.Kill()
	d := p.doctor(exitNo)
	d.want("reach", doctor.Bad, gone.Addr()+" does not answer", "bring it back")
	d.want("rings", doctor.Unknown, "buckets cannot be read")
	d.want("version", doctor.OK, first.Addr()+": Redis ")
}

func TestDoctorUsage(t *testing.T) {
	keyturn(t, "doctor").wantUsage(t, "--redis is missing", envRedis)
	keyturn(t, "doctor", "--redis", "http://hush").wantUsage(t, "want redis://")
	keyturn(t, "doctor", "now").wantUsage(t, "no flag", "keyturn doctor --help")
	call{env: map[string]string{envKEK: testSecret}}.run(t, "doctor", "--redis", "redis://127.0.0.1:1").wantUsage(t, "32 bytes")
}

// What a person is told to type reaches the same Redis, and does not show a password.
func TestDoctorFlags(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create").wantCode(t, exitYes)
	p.do("DEL", ringKey("default"))
	p.doctor(exitYes).want("ring", doctor.Warn, "keyturn keys create --redis "+p.url+" --tenant default")
	plain := p.url
	p.url = "redis://default:@" + p.server.Addr()
	p.doctor(exitYes).want("ring", doctor.Warn, `keyturn keys create --redis "$REDIS" --tenant default`)
	p.url = plain
	kek := file(t, p.kek)
	c := call{env: map[string]string{envRedis: p.url}}
	c.run(t, "doctor", "--kek-file", kek).wantCode(t, exitYes, fmt.Sprintf("keyturn keys create --kek-file %s --tenant default", kek))
}

// Rings that are broken, each in its own way.
func TestDoctorRings(t *testing.T) {
	p := newPatient(t, durable())
	for _, tenant := range []string{"part", "type", "none", "mute"} {
		p.run("keys", "create", "--tenant", tenant).wantCode(t, exitYes)
	}
	_, keys := p.list("--tenant", "part")
	p.do("HSET", ringKey("part"), "x:"+keys["pending"].KID, "rubbish")
	p.do("DEL", ringKey("type"))
	p.do("SET", ringKey("type"), "a string")
	p.do("DEL", ringKey("none"))
	_, keys = p.list("--tenant", "mute")
	p.run("keys", "revoke", "--tenant", "mute", "--force", "--no-wait", "--", keys["signing"].KID).wantCode(t, exitYes)
	want := func(tenant string, level doctor.Level, code int, phrases ...string) {
		t.Helper()
		p.doctor(code, "--tenant", tenant).want("ring", level, phrases...)
	}
	want("part", doctor.Bad, exitNo, "malformed", "keyturn keys list --redis "+p.url+" --tenant part", "Which error")
	want("type", doctor.Bad, exitNo, "did not write", "--tenant type")
	want("none", doctor.Warn, exitYes, "has no ring of it", "Redis came back empty")
	want("mute", doctor.Bad, exitNo, "no key signs now; the next one does in 2 minutes", "No key signs")
	want("nobody", doctor.Warn, exitYes, "has no ring of it")
	right := p.kek
	p.kek = newKEK()
	p.doctor(exitNo).want("ring", doctor.Bad, "wrong KEK", "--kek-file")
	p.kek = right
	c := call{env: map[string]string{envRedis: p.url}}
	c.run(t, "doctor").wantCode(t, exitCannotTell, "without a KEK 4 rings cannot be opened -> give --kek-file, or set KEYTURN_KEK_FILE")
}

// No rotator runs, and then a policy with another algorithm follows.
func TestDoctorRotation(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create", "--freshness", "4s", "--dwell", "20ms", "--skew", "20ms", "--sign-for", "2m").wantCode(t, exitYes)
	made := time.Now()
	p.doctor(exitYes).want("outage", doctor.Warn, "Redis may be away for 2 minutes before signing is at risk", "--sign-for")
	_, keys := p.list()
	p.run("keys", "revoke", "--no-wait", "--", keys["pending"].KID).wantCode(t, exitYes)
	p.doctor(exitYes).want("rotation", doctor.OK, "the next key is to be made")
	time.Sleep(time.Until(made.Add(8100 * time.Millisecond))) // a rotator would have minted one by then
	p.doctor(exitNo).want("rotation", doctor.Bad, "no rotator runs, and signing ends in", "keyturn keys rotate --redis "+p.url+" --tenant default")

	s, err := openStore(p.url, rediskeys.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	keks, err := rotation.ParseKEKs([]byte(p.kek))
	if err != nil {
		t.Fatal(err)
	}
	k, err := rotation.Open(t.Context(), s, rotation.Config{KEKs: keks, Tenants: []string{"default"}, OneShot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close(t.Context())
	rotator, err := rotation.NewRotator(k)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { // the deadline is short, and the machine may be busy
		_, err := rotator.SetPolicy(t.Context(), "default", rotation.Policy{Algorithm: "ES256"})
		return err == nil || errors.Is(err, rotation.ErrRefused)
	})
	p.doctor(exitYes).want("algorithms", doctor.Warn, "ES256 HS256 (for another 30 days", "MixedFamilies: true")
}

// An instance lists HS256 alone, and the ring moves to ES256 by force.
func TestDoctorVerified(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create", "--freshness", "8s", "--dwell", "1s", "--skew", "500ms").wantCode(t, exitYes)
	p.peerAt("peer-1", 100*time.Millisecond, 2*time.Second, "HS256")
	lists := func() bool { return strings.Contains(p.run("doctor").stdout, "accepts tokens of HS256 alone") }
	wait(t, lists)
	if out := p.run("doctor").stdout; strings.Contains(out, "verified") {
		t.Errorf("a healthy ring: %s", out)
	}
	wait(t, func() bool { return p.run("keys", "policy", "--alg", "ES256", "--force", "--no-wait").code == exitYes })
	p.doctor(exitNo).want("verified", doctor.Bad, "will sign with ES256 in 59 days", "add ES256 to Tenant.Algorithms of tenant default and to Config.Verifies", "keyturn keys revoke --redis "+p.url+" --tenant default -- ")
	p.run("keys", "rotate", "--force", "--no-wait").wantCode(t, exitYes)
	p.run("keys", "rotate", "--force", "--no-wait").wantCode(t, exitYes)
	p.doctor(exitNo).want("verified", doctor.Bad, "signs with ES256: they are refused there (401)", "add ES256 to Tenant.Algorithms")
}

func TestDoctorKEK(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create").wantCode(t, exitYes)
	p.kek = newKEK() + "\n" + p.kek
	p.doctor(exitYes).want("kek", doctor.Warn, "under another KEK than", "that one is still needed", "keyturn keys rekey --redis "+p.url+" --tenant default")
	p.run("keys", "rekey", "--no-wait").wantCode(t, exitYes)
	p.doctor(exitYes).want("kek", doctor.OK, "2 keys were made under another one")
}

func TestDoctorInstances(t *testing.T) {
	p := newPatient(t, durable())
	p.run("keys", "create", "--freshness", "12s", "--dwell", "1s", "--skew", "500ms").wantCode(t, exitYes)
	p.run("doctor").wantCode(t, exitYes, "no instance lives", "keyturn serve --redis "+p.url)
	startServe(t, map[string]string{envKEK: p.kek}, "--redis", p.url)
	lives := func() bool { return strings.Contains(p.run("doctor").stdout, "1 instance lives") }
	wait(t, lives)
	wait(t, func() bool { return !strings.Contains(p.run("doctor").stdout, "is not in sync") })

	right := p.kek
	p.kek = newKEK() + "\n" + right
	p.doctor(exitYes).want("instances", doctor.Warn, "has KEK", "first, and here it is", `"A new KEK"`)
	p.kek = right
	acks := fmt.Sprintf("kt:{%d}:ack", rotation.BucketOf("default"))
	for _, sealed := range p.server.Client().HGetAll(t.Context(), acks).Val() {
		p.do("HSET", acks, "intruder", sealed) // that of the instance, under another name
	}
	p.doctor(exitNo).want("instances", doctor.Bad, "1 acknowledgement is not authentic", "Someone writes to Redis")
	p.do("HDEL", acks, "intruder")
	p.now = func() time.Time { return time.Now().Add(10 * time.Minute) }
	p.doctor(exitNo).want("instances", doctor.Warn, "was last heard of", "see that it runs and reaches Redis")
}

// What an instance that has ended leaves in Redis is of no instance, and no one has forged it.
func TestDoctorAfterAStop(t *testing.T) {
	p := newPatient(t, durable())
	p.run(append([]string{"keys", "create"}, calm...)...).wantCode(t, exitYes)
	bucket := rotation.BucketOf("default")
	left := func() int64 { return p.server.Client().HLen(t.Context(), fmt.Sprintf("kt:{%d}:ack", bucket)).Val() }
	for pause := time.Second; left() == 0 && pause < 20*time.Second; pause *= 2 {
		peer := p.peer("peer-1", p.kek, "default")
		time.Sleep(pause) // what an instance has not seen for two polls, it does not vouch for
		if err := peer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := left(); n != 1 {
		t.Fatalf("%d acknowledgements are left", n)
	}
	p.doctor(exitYes).want("instances", doctor.Warn, "no instance lives", "keyturn serve")
	call{env: map[string]string{envRedis: p.url}}.run(t, "doctor").wantCode(t, exitCannotTell, "no instance lives")
}

// With many rings, only those with something wrong have lines.
func TestDoctorMany(t *testing.T) {
	p := newPatient(t, durable())
	for i := range manyRings + 1 {
		p.run("keys", "create", "--tenant", fmt.Sprint("tenant-", i)).wantCode(t, exitYes)
	}
	r := p.run("doctor").wantCode(t, exitYes, "21 rings looked at")
	if strings.Contains(r.stdout, "tenant \"") {
		t.Errorf("it speaks of rings in which nothing is wrong:\n%s", r.stdout)
	}
	p.run("doctor", "--tenant", "tenant-3").wantCode(t, exitYes, `tenant "tenant-3": it opens`)
	p.kek = newKEK()
	p.run("doctor").wantCode(t, exitNo, "bad      ring         and 1 more: --json lists them")
}

// Behind Sentinel the client does not say which server is the primary, but its port is known.
func TestDoctorSentinel(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	s := redistest.RunSentinel(t, durable())
	c := newRingCLI(t, "")
	c.url = "redis-sentinel://" + strings.Join(s.Addrs(), ",") + "/" + s.Name
	port := strings.TrimPrefix(s.Primary.Addr(), "127.0.0.1:")
	c.doctor(exitNo).want("replicas", doctor.Bad, "redis-cli -h PRIMARY -p "+port+" CONFIG SET min-replicas-to-write 1")
}

// A list of revocations is looked at where there is one, and none is made.
func TestDoctorLooksAtRevocations(t *testing.T) {
	p := newPatient(t, durable())
	p.doctor(exitYes)
	if n, err := p.server.Client().DBSize(t.Context()).Result(); err != nil || n != 0 {
		t.Errorf("the doctor has written %d keys, %v", n, err)
	}
	p.run("revoke", "--tenant", "acme", "--subject", "ann", "--no-wait").wantCode(t, exitYes)
	r := p.run("doctor", "--json")
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	doctored{t, all}.want("revocations", doctor.OK, "1 revocation")
	p.kek = newKEK()
	r = p.run("doctor", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	doctored{t, all}.want("revocations", doctor.Unknown, "wrong KEK")
}

// The digest key is removed while no instance runs: nothing can tell what the list revokes. doctor and
// "revocations count" say so, and so they do beside a new digest key.
func TestUnreadableRevocationsAreNamed(t *testing.T) {
	p := newPatient(t, durable())
	p.run("revoke", "--tenant", "acme", "--subject", "ann", "--no-wait").wantCode(t, exitYes)
	p.run("revocations", "count", "--json").want(t, exitYes, `{"token":0,"session":0,"subject":1,"tenant":0,"total":1,"unreadable":0}`+"\n")
	keys, err := p.server.Client().Keys(t.Context(), "kt:rv:*:ring:keys").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("the digest keys are in %q, %v", keys, err)
	}
	if err := p.server.Client().Del(t.Context(), keys[0]).Err(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		prepare []string
		total   string
	}{
		{[]string{"doctor"}, "0"},
		{[]string{"revoke", "--tenant", "acme", "--subject", "bob", "--no-wait"}, "1"},
	} {
		p.run(step.prepare...)
		p.doctor(exitNo).want("revocations", doctor.Bad, "1 group", "The digest keys of revocations")
		p.run("revocations", "count").wantCode(t, exitCannotTell, step.total+" revocation", "NOT THE WHOLE LIST: 1 group")
		p.run("revocations", "count", "--json").wantCode(t, exitCannotTell, `"total":`+step.total+`,"unreadable":1}`)
		p.run("revocations", "list").wantCode(t, exitCannotTell, "NOT THE WHOLE LIST: 1 group")
	}
}

// A key of the list has another type, and no instance runs that would mend it: the doctor says which.
func TestDoctorNamesABrokenGroup(t *testing.T) {
	p := newPatient(t, durable())
	p.run("revoke", "--tenant", "acme", "--subject", "ann", "--no-wait").wantCode(t, exitYes)
	keys, err := p.server.Client().Keys(t.Context(), "kt:rv:*:ring:e*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("the groups are %q, %v", keys, err)
	}
	if err := p.server.Client().Set(t.Context(), keys[0], "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	group := keys[0][strings.LastIndex(keys[0], ":")+1:]
	p.doctor(exitNo).want("revocations", doctor.Bad, group, "A group of the list is not keyturn's")
	p.run("revocations", "count").wantCode(t, exitCannotTell, group)
}
