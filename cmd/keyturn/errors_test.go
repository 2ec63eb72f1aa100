package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"

	"github.com/alicebob/miniredis/v2"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// An error about Redis uses the words of the command's user. If a single key is garbled, the error
// names it.
func TestErrorsNameNoInternals(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	m.RequireAuth("other")
	c.run("keys", "list").wantCode(t, exitCannotTell, "keyturn: Redis does not accept the user or the password")
	m.RequireAuth("")
	m.Set(fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default")), "a string")
	c.run("keys", "list", "--tenant", "default").wantCode(t, exitCannotTell, fmt.Sprintf(`load of tenant "default" (bucket %d): a key holds something`, rotation.BucketOf("default")))
	full := func(call string) error {
		return &rediskeys.Error{Call: call, Kind: rediskeys.ErrFull, Err: errors.New("OOM")}
	}
	away := func(err error) error { return &rotation.Error{Kind: keystore.ErrUnavailable, Err: err} }
	for want, err := range map[string]error{
		"Redis is full":             openingError(&rotation.Error{Text: "the keyring cannot be opened", Err: away(full("sync of bucket 175"))}),
		`tenant "a": Redis is full`: ringError(&rotation.Error{Text: `tenant "a"`, Err: away(full(`load of tenant "a" (bucket 9)`))}),
		`tenant "a": it is not known whether the change was made: Redis is full`: ringError(&rotation.Error{
			Text: `tenant "a": it is not known whether the change was made`, Err: away(full(`write of tenant "a"`)),
		}),
	} {
		e := new(exitError)
		if !errors.As(err, &e) || e.code != exitCannotTell || !strings.HasPrefix(e.text, want+": ") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTamperedTenantKeyInWords(t *testing.T) {
	m := miniredis.RunT(t)
	c := newRingCLI(t, m.Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	ringKey := fmt.Sprintf("kt:{%d}:ring:default", rotation.BucketOf("default"))
	fields, err := m.HKeys(ringKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range fields {
		if strings.HasPrefix(field, "tk:") {
			value := []byte(m.HGet(ringKey, field))
			value[len(value)-1] ^= 1
			m.HSet(ringKey, field, string(value))
		}
	}
	r := c.run("keys", "list").wantCode(t, exitCannotTell, "its tenant key cannot be opened: authentication failed: the tenant key was changed")
	if strings.Contains(r.stderr, "rotation:") {
		t.Errorf("the name of a package in %q", r.stderr)
	}
}

// One error is one line. The Redis client writes lines of its own to standard error, past every
// logger: they must not appear.
func TestRedisClientIsSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // a server that closes every connection
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	kek := file(t, newKEK())
	for _, addr := range []string{"127.0.0.1:1", l.Addr().String()} {
		for _, url := range []string{"redis://" + addr, "redis-sentinel://" + addr + "/mymaster", "redis-cluster://" + addr} {
			r := process(t, "", "keys", "list", "--redis", url, "--kek-file", kek)
			if r.code != exitCannotTell || strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "keyturn: ") {
				t.Errorf("%s: exit code = %d, stderr = %s", url, r.code, r.stderr)
			}
		}
	}
}

// What Redis refuses before it writes was not made, and the error says so.
func TestRedisRefusesChange(t *testing.T) {
	redistest.Need(t)
	c := newRingCLI(t, redistest.Run(t, redistest.Options{}).Addr())
	c.run("keys", "create").wantCode(t, exitYes)
	keys := c.wantStates("signing", "pending")
	client, err := rediskeys.Open(c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	redis := func(args ...any) {
		t.Helper()
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(args, err)
		}
	}
	for _, tt := range []struct {
		on, off []any
		says    string
	}{
		{[]any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}, "Redis is full"},
		{[]any{"ACL", "SETUSER", "default", "-hset"}, []any{"ACL", "SETUSER", "default", "+hset"}, "the Redis user may not do this"},
		{[]any{"REPLICAOF", "127.0.0.1", "1"}, []any{"REPLICAOF", "NO", "ONE"}, "replica"},
		{[]any{"CONFIG", "SET", "min-replicas-to-write", "1"}, []any{"CONFIG", "SET", "min-replicas-to-write", "0"}, "fewer replicas in reach"},
	} {
		redis(tt.on...)
		for _, args := range [][]string{{"rotate", "--force"}, {"revoke", "--", keys["pending"].KID}, {"create", "--tenant", "new"}} {
			r := c.run(append([]string{"keys"}, args...)...).wantCode(t, exitCannotTell, tt.says)
			if said := strings.Contains(r.stderr, "the change was not made"); strings.Contains(r.stderr, "it is not known") || !said {
				t.Errorf("%v: keys %s: it does not say that nothing was changed: %s", tt.on, args[0], r.stderr)
			}
		}
		redis(tt.off...)
	}
	c.wantStates("signing", "pending")
}
