package rediskeys_test

import (
	"crypto/rand"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/rotationtest"
)

func TestPassword(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	do(t, server, "ACL", "SETUSER", "default", "on", ">right", "allkeys", "allchannels", "allcommands")
	for _, url := range []string{"redis://", "redis://:s3cr3t@", "redis://nobody:s3cr3t@"} {
		for name, call := range calls(t.Context(), open(t, url+server.Addr()), rotation.Place{}) {
			err := call()
			wantErr(t, url+": "+name, err, rediskeys.ErrNoAuth)
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error shows the password: %v", err)
			}
		}
	}
	begin(t, open(t, "redis://:right@"+server.Addr()))
}

func TestDocumentedRightsAreEnough(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, _ := running(t)
	setUser(t, server, documented)
	rotationtest.TestStore(t, func(t *testing.T) rotation.Store {
		flush(t, server)
		return open(t, "redis://keyturn:right@"+server.Addr())
	})
}

// Redis does not undo a script that fails half way. So if the ACL allows only a part of a change,
// none of it is made.
func TestMissingRights(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, admin := running(t)
	ring := set(t, admin, tenant, "f", "1")
	for _, missing := range []string{"xadd", "hset", "hdel", "sadd", "srem", "hgetall", "time", "evalsha"} {
		forbid(t, server, "-"+missing)
		s := open(t, "redis://keyturn:right@"+server.Addr())
		_, err := s.Write(t.Context(), rotation.Change{Tenant: tenant, Nonce: rand.Text(), If: ring.Digest, Set: map[string][]byte{"g": nil}, Delete: []string{"f"}})
		wantErr(t, "Write without "+missing, err, rediskeys.ErrNoPermission)
		if got := admin.Load(t.Context(), []string{tenant})[0]; got.Err != nil || got.Digest != ring.Digest {
			t.Fatalf("without %s: half of a change was made: %+v", missing, got)
		}
	}
	forbid(t, server, "-publish")
	set(t, open(t, "redis://keyturn:right@"+server.Addr()), tenant, "f", "without a nudge")
}

// Without the right to ask for the server's role no method answers: the server may be a replica.
func TestNoRoleNoAnswer(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, admin := running(t)
	at := begin(t, admin)
	forbid(t, server, "-info")
	for name, call := range calls(t.Context(), open(t, "redis://keyturn:right@"+server.Addr()), at) {
		wantErr(t, name, call(), rediskeys.ErrNoPermission)
	}
}

// The commands that the pages tell an operator to allow are those with which these tests run.
func TestRightsAreDocumented(t *testing.T) {
	var want []string
	for _, right := range documented {
		if name, ok := strings.CutPrefix(right, "+"); ok {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	page := file(t, "../../docs/operations.md")
	_, page, _ = strings.Cut(page, "ACL SETUSER keyturn on")
	page, _, _ = strings.Cut(page, "printf")
	comment := file(t, "doc.go")
	_, comment, _ = strings.Cut(comment, "needs the commands ")
	comment, _, _ = strings.Cut(comment, ", and cluster|slots")
	for what, text := range map[string]string{"docs/operations.md": page, "doc.go": comment} {
		var got []string
		for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz|+~&:*'", r) }) {
			word = strings.Trim(word, "'")
			if name := strings.TrimPrefix(word, "+"); what == "doc.go" || name != word {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s lists the commands %q, want %q", what, got, want)
		}
	}
}

func file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
