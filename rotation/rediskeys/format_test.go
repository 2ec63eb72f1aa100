package rediskeys_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestFormat compares the keys in Redis with docs/formats.md, byte for byte.
func TestFormat(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	ctx := t.Context()
	first := begin(t, s)
	r := write(t, s, rotation.Change{
		Tenant: tenant, Set: map[string][]byte{"head": []byte("1"), "k:a": {0, 0xff}}, Publish: []string{"a"},
		Op: ring.OpCreate, KID: "a", Seq: 1, Actor: "operator", Nonce: "nonce\x00", MAC: []byte("\x00mac\xff\x00"),
	})
	wantAck := ack("one\x00\xff", 0)
	sync1(t, s, "one", rotation.SyncRequest{Bucket: bucket, Place: first, Ack: wantAck})

	keys := server.Client().Keys(ctx, "*").Val()
	slices.Sort(keys)
	if want := []string{key("ack"), key("log"), key("ring:" + tenant), key("tenants")}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
	wantNoTTL(t, server, keys)
	ms := strconv.FormatInt(r.Now.UnixMilli(), 10)
	if got, want := server.Client().HGetAll(ctx, key("ring:"+tenant)).Val(), map[string]string{"head": "1", "k:a": "\x00\xff", "p:a": ms}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ring %q, want %q", got, want)
	}
	if got := server.Client().SMembers(ctx, key("tenants")).Val(); !slices.Equal(got, []string{tenant}) {
		t.Errorf("tenants %q", got)
	}
	wantLog := [][]string{
		{first.ID, "op", "begin", "tenant", "", "kid", "", "seq", "0", "actor", "", "nonce", first.Nonce, "mac", ""},
		{r.Place.ID, "op", "create", "tenant", tenant, "kid", "a", "seq", "1", "actor", "operator", "nonce", "nonce\x00", "mac", "\x00mac\xff\x00"},
	}
	if got := rawLog(t, server); !slices.EqualFunc(got, wantLog, slices.Equal) {
		t.Errorf("log %q, want %q", got, wantLog)
	}
	if got := server.Client().HGet(ctx, key("ack"), "one").Val(); got != string(wantAck) {
		t.Errorf("acknowledgement %q, want %q", got, wantAck)
	}
	write(t, s, rotation.Change{Tenant: tenant, If: r.Digest, Set: map[string][]byte{"head": []byte("2")}, Op: ring.OpMint, Actor: "operator", Nonce: "next"})
	wantNoTTL(t, server, keys) // the first change finds no key that could get one
}

// wantNoTTL checks that keys live until someone deletes them.
func wantNoTTL(t *testing.T, server *redistest.Server, keys []string) {
	t.Helper()
	for _, k := range keys {
		if ttl := server.Client().TTL(t.Context(), k).Val(); ttl != -1 {
			t.Errorf("%q has a time to live: %v", k, ttl)
		}
	}
}

func rawLog(t *testing.T, server *redistest.Server) [][]string {
	entries, err := server.Client().Do(t.Context(), "XRANGE", key("log"), "-", "+").Slice()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, e := range entries {
		one := []string{e.([]any)[0].(string)}
		for _, field := range e.([]any)[1].([]any) {
			one = append(one, field.(string))
		}
		all = append(all, one)
	}
	return all
}

// The digest is part of the format. This one was computed with the commands below, and is an
// example in docs/formats.md.
func TestDigestVector(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	_, s := running(t)
	r := write(t, s, rotation.Change{Tenant: tenant, Set: map[string][]byte{"head": []byte("1"), "k:a": {0, 0xff}}})
	// printf '4:head1:1' | sha1sum; printf '3:k:a2:\0\377' | sha1sum; both sorted, in one line |
	// sha1sum
	const want = "981e7e094efd4a79056ac78de5e79200269e1f81"
	if r.Digest != want {
		t.Errorf("Write: %s, want %s", r.Digest, want)
	}
	if got := s.Load(t.Context(), []string{tenant})[0].Digest; got != want {
		t.Errorf("Load: %s, want %s", got, want)
	}
	if got := sync1(t, s, "", rotation.SyncRequest{Bucket: bucket, Digests: []string{tenant}}).Digests[0]; got != want {
		t.Errorf("Sync: %s, want %s", got, want)
	}
}

func TestPrefixes(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server := redistest.Run(t, redistest.Options{})
	client := connect(t, "redis://"+server.Addr())
	one, two := storeOf(t, client, rediskeys.Config{}), storeOf(t, client, rediskeys.Config{Prefix: "other"})
	set(t, one, tenant, "f", "1")
	if got := two.Load(t.Context(), []string{tenant})[0]; got.Err != nil || len(got.Fields) > 0 {
		t.Errorf("another prefix has %+v", got)
	}
	set(t, two, tenant, "f", "2")
	if n := server.Client().Exists(t.Context(), "other:{"+strconv.Itoa(bucket)+"}:ring:"+tenant).Val(); n != 1 {
		t.Error("no ring of that prefix")
	}
}
