package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// listInstance opens the list as an instance of a service does, which is ready when it returns. kek may
// be empty.
func listInstance(t *testing.T, addr, name, kek string) *revocations.List {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	return listOn(t, client, name, kek)
}

func listOn(t *testing.T, client redis.UniversalClient, name, kek string) *revocations.List {
	t.Helper()
	cfg := revocations.Config{Instance: name, TrustFirstRead: true, Deadline: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	if kek != "" {
		keks, err := rotation.ParseKEKs([]byte(kek))
		if err != nil {
			t.Fatal(err)
		}
		cfg.KEKs = keks
	}
	l, err := revocations.Open(t.Context(), client, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.WithoutCancel(t.Context())) })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return l
}

// onList runs test with a Redis that has a list, and an instance that asks it.
func onList(t *testing.T, test func(t *testing.T, c *ringCLI, l *revocations.List)) {
	t.Helper()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	test(t, c, listInstance(t, strings.TrimPrefix(c.url, "redis://"), "a", c.kek))
}

// A shownRevocation is what --json prints of a revocation.
type shownRevocation struct {
	Kind, Tenant     string
	Before           *string
	Ends             time.Time
	Known            bool
	Applied, Missing []string
	CommittedAt      string `json:"committed_at"`
}

func (r result) revocation(t *testing.T) (shown shownRevocation) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &shown); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout = %q, %v; stderr: %s", r.stdout, err, r.stderr)
	}
	return shown
}

func TestRevokeReachesTheInstances(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		hour := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		for _, tt := range []struct {
			flags  []string
			kind   revocations.Kind
			before string
			ends   time.Time // at the least; 10 minutes later at the most
		}{
			{[]string{"--subject", "ann", "--before", hour.Add(-time.Millisecond).Format(time.RFC3339Nano), "--max-ttl", "24h"}, revocations.Subject, hour.Format(milliseconds), hour.Add(24 * time.Hour)},
			{[]string{"--session", "s-secret", "--exp", "2027-01-01T00:00:00Z"}, revocations.Session, "", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
			{[]string{"--jti", "j-secret", "--exp", "1798081200"}, revocations.Token, "", time.Unix(1798081200, 0)},
			{[]string{"--all", "--before", "2026-11-27T10:00:00Z"}, revocations.Tenant, "2026-11-27T10:00:00.000Z", time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC).Add(400 * 24 * time.Hour)},
		} {
			r := c.run(append([]string{"revoke", "--tenant", "acme", "--json", "--wait", "20s"}, tt.flags...)...).wantCode(t, exitYes)
			got := r.revocation(t)
			if got.Kind != string(tt.kind) || got.Tenant != "acme" || got.Known || !slices.Equal(got.Applied, []string{"a"}) || len(got.Missing) > 0 || got.CommittedAt == "" {
				t.Errorf("%v: %+v", tt.flags, got)
			}
			if before := ""; tt.before != before && (got.Before == nil || *got.Before != tt.before) || tt.before == "" && got.Before != nil {
				t.Errorf("%v: before %v, want %q", tt.flags, got.Before, tt.before)
			}
			if got.Ends.Before(tt.ends) || got.Ends.After(tt.ends.Add(10*time.Minute)) {
				t.Errorf("%v: ends %v, want soon after %v", tt.flags, got.Ends, tt.ends)
			}
		}
		if n := l.Len(); n != 4 {
			t.Errorf("the instance holds %d revocations, want 4", n)
		}
		again := c.run("revoke", "--tenant", "acme", "--session", "s-secret", "--exp", "2027-01-01T00:00:00Z", "--json").wantCode(t, exitYes)
		if !again.revocation(t).Known {
			t.Errorf("once more: %s", again.stdout)
		}
		if said := c.said.String(); strings.Contains(said, "secret") {
			t.Errorf("the name of a session or a token is in the output: %s", said)
		}
	})
}

// The machine of an operator may be slow. Now is the time of Redis then, or a token that was stolen a minute ago would
// go on although the command says that it has ended.
func TestRevokeOnAMachineThatIsSlow(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		c.now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		for _, what := range [][]string{{"--subject", "ann"}, {"--all"}} {
			begin := time.Now()
			r := c.run(append([]string{"revoke", "--tenant", "acme", "--json"}, what...)...).wantCode(t, exitYes, "behind that of Redis: tokens that were issued up to the time of Redis are revoked")
			got := r.revocation(t)
			before, err := time.Parse(time.RFC3339Nano, *got.Before)
			if err != nil || before.Before(begin) || got.Known || !slices.Equal(got.Applied, []string{"a"}) {
				t.Errorf("%v: before %v, want %v or later: %+v, %v", what, before, begin, got, err)
			}
		}
		c.now = func() time.Time { return time.Now().Add(-3 * time.Hour) } // or Redis is ahead: a person can set its time
		ahead := c.now().Add(time.Minute)
		c.run("revoke", "--tenant", "far", "--all", "--json").wantCode(t, exitCannotTell, "that of Redis is ", " ahead: look at both", "revoke again with --before")
		wait(t, func() bool { return len(slices.Collect(l.All("far"))) > 0 })
		for e := range l.All("far") {
			if e.Before.After(ahead) {
				t.Errorf("before %v, and by this machine it is not %v yet", e.Before, ahead)
			}
		}
		old := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		got := c.run("revoke", "--tenant", "acme", "--subject", "bob", "--before", old.Format(time.RFC3339), "--json").wantCode(t, exitYes).revocation(t)
		if *got.Before != old.Format(milliseconds) {
			t.Errorf("before %s, and %v was asked for", *got.Before, old)
		}
	})
}

func TestRevokeForPeople(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--dry-run").wantCode(t, exitYes, `tokens of subject "ann" of tenant "acme" would be revoked; nothing was changed`, "there is no undo", "1 instance would hear of it: a")
		const again = "a token that lives longer than --max-ttl, 15m, is accepted again then"
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--max-ttl", "15m", "--dry-run").wantCode(t, exitYes, again)
		if n := l.Len(); n != 0 {
			t.Errorf("--dry-run has revoked something: %d", n)
		}
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--before", "2026-11-28T10:00:00.5Z").
			wantCode(t, exitYes, `tokens of subject "ann" of tenant "acme" are revoked`, "before 2026-11-28T10:00:01Z, and those without iat", "count from 2026-11-28T10:00:01Z on", "1 of 1 instance has applied it")
		c.run("revoke", "--tenant", "globex", "--jti", "x", "--exp", "1798081200", "--max-ttl", "15m", "--no-wait").
			wantCode(t, exitYes, `one token of tenant "globex" is revoked`, "by then all of these tokens have expired")
		c.run("revoke", "--tenant", "umbrella", "--all", "--max-ttl", "15m", "--no-wait").wantCode(t, exitYes, again)
		c.run("revocations", "list").wantCode(t, exitYes, "subject  ", "before 2026-11-28T10:00:01Z ends ", "token    ")
		c.run("revocations", "count").want(t, exitYes, "3 revocations: 1 token, 0 sessions, 1 subject, 1 tenant\n")
		c.run("revocations", "count", "--tenant", "globex", "--json").want(t, exitYes, `{"token":1,"session":0,"subject":0,"tenant":0,"total":1,"unreadable":0}`+"\n")
		var all []struct{ Kind, Digest, Key string }
		r := c.run("revocations", "list", "--tenant", "acme", "--json")
		if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) != 1 || all[0].Kind != "subject" || all[0].Digest == "" || all[0].Key == "" {
			t.Errorf("list --json: %v %s", err, r.stdout)
		}
	})
}

func TestRevokeReadsSecretNamesFromStandardInput(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		given := call{env: map[string]string{envRedis: c.url, envKEK: c.kek}, stdin: strings.NewReader("s1\n")}
		given.run(t, "revoke", "--tenant", "acme", "--session", "-", "--exp", "2027-01-01T00:00:00Z", "--no-wait").wantCode(t, exitYes)
		if again := c.run("revoke", "--tenant", "acme", "--session", "s1", "--exp", "2027-01-01T00:00:00Z", "--json"); !again.revocation(t).Known {
			t.Errorf("the session of standard input is another one: %s", again.stdout)
		}
		call{env: given.env}.run(t, "revoke", "--tenant", "acme", "--session", "-").wantUsage(t, "standard input is empty")
	})
}

func TestRevokeUsage(t *testing.T) {
	for _, tt := range []struct{ flags, phrase string }{
		{"--subject ann", "--tenant is missing"},
		{"--tenant acme", "one of --subject, --session, --jti and --all"},
		{"--tenant acme --subject ann --all", "one of --subject"},
		{"--tenant acme --jti x", "--exp is missing"},
		{"--tenant acme --subject ann --exp 1798081200", "--exp goes with --jti or --session"},
		{"--tenant acme --session s --before 1798081200", "--before goes with --subject or --all"},
		{"--tenant acme --all --wait 1s --no-wait", "--wait and --no-wait"},
		{"--tenant acme --subject ann", "--redis is missing"},
		{"--tenant acme --subject ann --redis redis://127.0.0.1:1 --realm x", "--realm goes with a KEK"},
		{"--tenant acme --jti j --exp 2020-01-01T00:00:00Z", "--exp is in the past"},
		{"--tenant acme --session s --exp 2020-01-01T00:00:00Z", "--exp is in the past"},
		{"--tenant acme --subject ann --before 2026-11-01T00:00:00Z --max-ttl 1h", "--before is too long ago: each token that was issued before it, and lives 1h at most"},
		{"--tenant acme --all --before 2020-01-01T00:00:00Z", "and lives 400d at most"},
		{"--tenant acme --all ann", "--subject, --session or --jti says what is revoked"},
	} {
		keyturn(t, append([]string{"revoke"}, strings.Fields(tt.flags)...)...).wantUsage(t, tt.phrase)
	}
	keyturn(t, "revocations").wantUsage(t, "list or count")
	keyturn(t, "revocations", "lst").wantUsage(t, `did you mean "list"`)
}

func TestRevokeThatIsNotDone(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--before", later).wantCode(t, exitNo, "refused: --before is in the future")
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--before", later, "--json").wantCode(t, exitNo, `{"ok":false,"error":"refused: --before is in the future`)
		away := call{env: map[string]string{envRedis: "redis://127.0.0.1:1"}}
		away.run(t, "revoke", "--tenant", "acme", "--subject", "ann").wantCode(t, exitCannotTell, "Redis cannot be reached")
		away.run(t, "revocations", "count").wantCode(t, exitCannotTell, "Redis cannot be reached")
		for what, env := range map[string]map[string]string{
			"another KEK": {envRedis: c.url, envKEK: newKEK()}, "no KEK": {envRedis: c.url},
		} {
			r := call{env: env}.run(t, "revoke", "--tenant", "acme", "--subject", "ann")
			if r.code != exitCannotTell || !strings.Contains(r.stderr, "KEK") {
				t.Errorf("%s: %d %s%s", what, r.code, r.stdout, r.stderr)
			}
		}
		if s := l.Status(); l.Len() != 0 || !s.Ready {
			t.Errorf("the instance: %d revocations, %+v", l.Len(), s)
		}
	})
}

// A command with a KEK is not let loose on a list without one: no instance could open what it writes.
func TestRevokeWithAKEKThatTheServiceLacks(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	l := listInstance(t, strings.TrimPrefix(c.url, "redis://"), "a", "")
	if _, err := l.RevokeSubject(t.Context(), "acme", "bob", time.Now()); err != nil {
		t.Fatal(err)
	}
	c.run("revoke", "--tenant", "acme", "--subject", "ann").wantCode(t, exitCannotTell, "or none if it has none")
	call{env: map[string]string{envRedis: c.url}}.run(t, "revoke", "--tenant", "acme", "--subject", "ann").wantCode(t, exitYes, "1 of 1 instance")
	if s := l.Status(); l.Len() != 2 || !s.Ready {
		t.Errorf("the instance: %d revocations, %+v", l.Len(), s)
	}
}

// An instance that is cut off has not applied a revocation: exit code 4 names it.
func TestRevokeNamesWhoHasNotAppliedIt(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		p := redistest.RunProxy(t, strings.TrimPrefix(c.url, "redis://"))
		listInstance(t, p.Addr(), "cut off", c.kek)
		waitUntil(t, 30*time.Second, func() bool { // it has said that it is there, in the bucket of this subject
			r := c.run("revoke", "--tenant", "acme", "--subject", "ann", "--json", "--wait", "5s")
			return slices.Equal(r.revocation(t).Applied, []string{"a", "cut off"})
		})
		p.Cut()
		r := c.run("revoke", "--tenant", "acme", "--subject", "ann", "--json", "--wait", "1s").wantCode(t, exitNotEverywhere, "1 instance had not applied it within the wait: cut off")
		if got := r.revocation(t); !slices.Equal(got.Applied, []string{"a"}) || !slices.Equal(got.Missing, []string{"cut off"}) {
			t.Errorf("%+v", got)
		}
	})
}

// Without an instance a command waits for seconds, and says why. Each text is in TestListWaits.
func TestWaitsForTheListAreNotSilent(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	token := strings.TrimSpace(c.run("sign", "--tenant", "acme", "--claim", "sub=ann").wantCode(t, exitYes).stdout)
	c.run("revoke", "--tenant", "acme", "--subject", "bob", "--wait", "60s").wantCode(t, exitYes, "keyturn: note: waiting ", "no instance was seen")
	c.run("verify", "--tenant", "acme", "--alg", "HS256,ES256", token).wantCode(t, exitYes, "keyturn: note: waiting ", "which holds 1 revocation")
}

func TestListWaits(t *testing.T) {
	read := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct{ text, want string }{
		{listWait(&revocations.Status{}), "waiting until the list of revocations is read"},
		{listWait(&revocations.Status{Read: read, Unread: context.Canceled}), "waiting for Redis to answer"},
		{listWait(&revocations.Status{Read: read}), "waiting until it is known that Redis has lost no revocation, as no instance that runs says so"},
		{writeWait(&revocations.Status{}), "waiting for an instance to put back the digest keys of the list, as Redis has none"},
		{writeWait(&revocations.Status{KeyNames: []string{"a"}}), "waiting for Redis to answer"},
		{revokeWait(nil, nil, 4600*time.Millisecond), "waiting for an instance to apply it, if there is one, 5s at most"},
		{revokeWait(nil, context.Canceled, -time.Second), "waiting for Redis to say which instances have applied it, 0s at most"},
		{revokeWait([]string{"a"}, nil, time.Second), "waiting until 1 instance has applied it, 1s at most: a"},
		{revokeWait([]string{"a", "b", "c", "d"}, nil, time.Second), "waiting until 4 instances have applied it, 1s at most: a, b, c"},
	} {
		if tt.text != tt.want {
			t.Errorf("%q, want %q", tt.text, tt.want)
		}
	}
}

// verify asks the list of a ring's Redis about a token that is good otherwise. It never calls a token
// good when the list cannot tell.
func TestVerifyAsksTheListOfAFleet(t *testing.T) {
	t.Parallel()
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	c.run("keys", "create", "--tenant", "acme").wantCode(t, exitYes)
	sign := func(sub, jti string) string {
		return strings.TrimSpace(c.run("sign", "--tenant", "acme", "--claim", "sub="+sub, "--claim", "jti="+jti).wantCode(t, exitYes).stdout)
	}
	ann, bob := sign("ann", "1"), sign("bob", "2")
	verify := func(token string, more ...string) result {
		return c.run(append([]string{"verify", "--tenant", "acme", "--alg", "HS256,ES256"}, append(more, token)...)...)
	}
	verify(ann).wantCode(t, exitYes, "revoked  not asked: this Redis has no list")
	verify(ann, "--json").wantCode(t, exitYes, `,"revocations":"none"}`)
	listInstance(t, strings.TrimPrefix(c.url, "redis://"), "a", c.kek)
	c.run("revoke", "--tenant", "acme", "--jti", "1", "--exp", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--wait", "20s").wantCode(t, exitYes)
	verify(ann, "--json").wantCode(t, exitNo, `{"ok":false,"reason":"revoked"`, "there is no undo")
	verify(bob).wantCode(t, exitYes, "revoked  no, says the list in this Redis, which holds 1 revocation")
	verify(ann, "--revocations", "ignore").wantCode(t, exitYes, "revoked  not asked: --revocations ignore")
	verify(ann+"x", "--revocations", "plain").wantCode(t, exitNo, "refused (")
	verify(bob, "--revocations", "plain").wantCode(t, exitCannotTell, "what Redis holds of the revocations cannot be opened")
	verify(bob, "--revocations", "plain", "--json").wantCode(t, exitCannotTell, `{"ok":false,"reason":"unavailable"`)
	verify(bob, "--revocations", "no").wantUsage(t, "want ask, plain or ignore")
	keyturn(t, "verify", "--alg", "HS256", "--secret-file", "x", "--revocations", "ask", "t").wantUsage(t, "--revocations goes with --redis")
}

// --dry-run names who would hear of a revocation, and who would not.
func TestRevokeDryRunNamesTheInstances(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		p := redistest.RunProxy(t, strings.TrimPrefix(c.url, "redis://"))
		listInstance(t, p.Addr(), "cut off", c.kek)
		dryRun := func() string {
			return c.run("revoke", "--tenant", "acme", "--subject", "ann", "--json", "--dry-run").wantCode(t, exitYes).stdout
		}
		waitUntil(t, 60*time.Second, func() bool { return strings.Contains(dryRun(), `"live":["a","cut off"],"silent":[]`) })
		p.Cut()
		waitUntil(t, 60*time.Second, func() bool { return strings.Contains(dryRun(), `"live":["a"],"silent":["cut off"]`) })
		c.run("revoke", "--tenant", "acme", "--subject", "ann", "--dry-run").wantCode(t, exitYes, "1 instance would hear of it: a", "cut off would NOT; last heard of")
	})
}

// A writer deletes a revocation while the command watches it: exit code 3, and it is there again. An instance
// would have put it back before the command sees that it is gone.
func TestRevokeThatIsUndone(t *testing.T) {
	t.Parallel()
	onList(t, func(t *testing.T, c *ringCLI, l *revocations.List) {
		l.Close(t.Context())
		client := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(c.url, "redis://")})
		defer client.Close()
		deleted := make(chan error)
		go func() {
			for {
				keys, err := client.Keys(t.Context(), "kt:rv:*:ring:e*").Result()
				if err == nil && len(keys) > 0 {
					err = client.Del(t.Context(), keys...).Err()
				}
				if err != nil || len(keys) > 0 {
					deleted <- err
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		r := c.run("revoke", "--tenant", "acme", "--subject", "bob", "--json", "--wait", "20s").wantCode(t, exitCannotTell, "Redis lost the revocation after it was made", `"undone":true`)
		if err := <-deleted; err != nil {
			t.Fatalf("%v: %s", err, r.stderr)
		}
		c.run("revocations", "count").wantCode(t, exitYes, "1 revocation")
	})
}
