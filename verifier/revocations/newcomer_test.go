package revocations

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rotationtest"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
	"github.com/keyturn/keyturn/verifier/revocations/internal/table"
)

// The lists of a siege have 16 groups a bucket, so that a holder that compares one with each poll finds a loss
// after half a minute. Where it compares eight with each poll, they have 64.
const (
	many = 4096
	most = 4 * many
)

// A siege is a store, an instance that holds revocations, and what a person remembers who can write to the
// store and has no KEK. He removes the newest revocation before another instance starts.
type siege struct {
	t       *testing.T
	cluster *rotationtest.Cluster
	conn    *rotationtest.Conn
	issuer  *issuer
	holder  *List
	groups  int
	bucket  int
	jtis    []string        // one in each group of the bucket; the last is removed
	nonce   string          // of its entry of the log
	nonces  []string        // of those before it
	token   string          // that it revokes
	before  rotation.RawAck // the holder's acknowledgement before it
	rounds  int
	moves   int // how far say moves in the log
}

func newSiege(t *testing.T, groups int) *siege {
	t.Helper()
	s := &siege{t: t, groups: groups, cluster: rotationtest.NewCluster(rotationtest.ClusterConfig{Page: 1 << 16}), issuer: newIssuer(t, "acme")}
	s.conn = s.cluster.Connect("person")
	s.holder = s.open("a")
	ready(t, s.holder)
	revoked(t, s.issuer, s.holder, "first") // makes the digest key
	s.bucket = int(bucketsOf()[0])
	taken := make(map[int]bool)
	for i := 0; len(taken) < len(s.holder.byIndex[s.bucket].groups); i++ {
		if g := s.group(fmt.Sprint(i)); int(bucketsOf()[g]) == s.bucket && !taken[g] {
			taken[g] = true
			s.jtis = append(s.jtis, fmt.Sprint(i))
		}
	}
	for _, jti := range s.jtis[:len(s.jtis)-1] {
		s.nonces = append(s.nonces, s.revoke(jti))
	}
	gone := s.open("gone")
	ready(t, gone)
	time.Sleep(9 * time.Second)                     // it can vouch after two polls
	if err := gone.Close(t.Context()); err != nil { // its last acknowledgement stays
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	s.before = s.ack()
	s.token = s.issuer.token("acme", map[string]any{"jti": s.last()})
	s.nonce = s.revoke(s.last())
	time.Sleep(6 * time.Second)
	return s
}

func (s *siege) open(name string) *List {
	conn := s.cluster.Connect(name)
	conn.SetFaults(rotationtest.Faults{Before: time.Millisecond})
	return open(s.t, conn, name, func(c *Config) { c.groups = s.groups })
}

func (s *siege) revoke(jti string) (nonce string) {
	receipt, err := s.holder.RevokeToken(s.t.Context(), "acme", jti, time.Now().Add(15*time.Minute))
	if err != nil {
		s.t.Fatal(err)
	}
	return receipt.nonce
}

func (s *siege) last() string { return s.jtis[len(s.jtis)-1] }

func (s *siege) group(jti string) int {
	return groupOf(s.holder.current().First().Digest(table.Token, "acme", jti), s.groups)
}

// ack returns the holder's acknowledgement.
func (s *siege) ack() (ack rotation.RawAck) {
	acks, _, err := s.conn.Acks(s.t.Context(), s.bucket)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range acks {
		if a.Instance == s.holder.cfg.Instance {
			ack = a
		}
	}
	return ack
}

// cut removes the newest revocation, and its entry from the middle of the log: the holder has read an entry
// after it, whose nonce is that, so its place stays proved.
func (s *siege) cut(nonce string) {
	s.cluster.AddEntry(s.bucket, rotation.LogEntry{Op: "x", Nonce: nonce})
	time.Sleep(3 * time.Second)
	s.remove()
}

// remove removes the newest revocation from its group and from the log.
func (s *siege) remove() {
	s.cluster.EditRing(groupName(s.group(s.last())), func(fields map[string][]byte) { clear(fields) })
	s.cluster.DropEntry(s.bucket, s.nonce)
}

// crowd writes as many acknowledgements as a reply has, which begin like those of instances.
func (s *siege) crowd(at time.Time, key uint32) {
	for i := range 64 {
		sealed := slices.Clone(s.before.Sealed)
		binary.BigEndian.PutUint64(sealed[4:], uint64(at.UnixMilli()))
		if key != 0 {
			binary.BigEndian.PutUint32(sealed[12:], key)
		}
		s.cluster.ForgeAck(s.bucket, fmt.Sprint("forged", i), sealed)
	}
}

// churn changes all groups of the bucket except that of the newest revocation.
func (s *siege) churn() {
	s.rounds++
	for _, jti := range s.jtis[:len(s.jtis)-1] {
		s.cluster.EditRing(groupName(s.group(jti)), func(fields map[string][]byte) { fields["x"] = fmt.Append(nil, s.rounds) })
	}
}

// TestNewcomerIsNotDeceived: a person without a KEK removes a revocation that a live instance holds, and hides
// that from an instance that starts. It may not be ready for as long as he goes on, and never accepts the token.
func TestNewcomerIsNotDeceived(t *testing.T) {
	const cap = 30 * time.Second // before a dispute ends that is not settled
	for name, tt := range map[string]struct {
		before func(s *siege)
		every  time.Duration // how often during comes
		during func(s *siege)
		lasts  time.Duration
		groups int
	}{
		"the log is cut in the middle":    {before: func(s *siege) { s.cut("J") }},
		"the entry after it has no nonce": {before: func(s *siege) { s.cut("") }},
		"an older acknowledgement vouches": {before: func(s *siege) {
			s.cut("J")
			s.cluster.ForgeAck(s.bucket, s.before.Instance, s.before.Sealed)
		}},
		"the entry after it is named like an earlier one, where the last instance ended": {before: func(s *siege) {
			s.cut(s.nonces[len(s.nonces)-1])
			s.cluster.ForgeAck(s.bucket, s.before.Instance, nil)
		}},
		"the acknowledgements are garbled all the while": {
			before: func(s *siege) { s.cut("J") }, every: 50 * time.Millisecond, lasts: cap,
			during: func(s *siege) {
				garbled := binary.BigEndian.AppendUint64([]byte("kt\x01A"), uint64(time.Now().UnixMilli()))
				s.cluster.ForgeAck(s.bucket, s.before.Instance, garbled)
				s.cluster.ForgeAck(s.bucket, "newcomer", garbled)
			},
		},
		"the log grows all the while": {
			before: func(s *siege) { s.cut("J") }, every: 50 * time.Millisecond, lasts: time.Minute,
			during: func(s *siege) {
				s.rounds++
				s.cluster.AddEntry(s.bucket, rotation.LogEntry{Op: "x", Nonce: fmt.Sprint("J", s.rounds)})
			},
		},
		"the holder is crowded out once": {before: func(s *siege) { s.cut("J"); s.crowd(time.Now().Add(59*time.Minute), 0) }, lasts: cap},
		"the holder is crowded out all the while": {
			before: func(s *siege) { s.cut("J") }, every: 500 * time.Millisecond, lasts: time.Minute,
			during: func(s *siege) { s.crowd(time.Now().Add(time.Second), 0) },
		},
		"the holder is crowded out under an unknown key": {
			before: func(s *siege) { s.cut("J") }, every: 500 * time.Millisecond, lasts: time.Minute,
			during: func(s *siege) { s.crowd(time.Now().Add(time.Second), 99) },
		},
		"the groups change all the while": {
			before: func(s *siege) { s.cut("J") }, every: 100 * time.Millisecond, lasts: time.Minute,
			during: (*siege).churn, groups: most,
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := newSiege(t, max(tt.groups, many))
				tt.before(s)
				n := s.open("newcomer")
				for began := time.Now(); time.Since(began) < max(tt.lasts, 10*time.Second); time.Sleep(max(tt.every, 10*time.Millisecond)) {
					if tt.during != nil {
						tt.during(s)
					}
					if revoked, err := says(n, names{tenant: "acme", jti: s.last()}); err == nil && !revoked {
						t.Fatalf("after %v the newcomer accepts a revoked token: %+v", time.Since(began), n.Status())
					}
				}
				time.Sleep(20 * time.Second)
				want(t, s.issuer, s.token, "refused", s.holder, n)
				want(t, s.issuer, s.issuer.token("acme", nil), "accepted", s.holder, n)
			})
		})
	}
}

// say writes an authentic acknowledgement of an instance that is live and never in sync. It compares with no other.
func (s *siege) say(k *codec.Key, minute int64) {
	s.rounds += s.moves
	a := codec.Ack{Instance: "other", Bucket: s.bucket, At: time.Now(), Place: fmt.Sprint("x@", s.rounds), Last: "x", Minute: cmp.Or(minute, time.Now().Truncate(time.Minute).Unix())}
	s.cluster.ForgeAck(s.bucket, a.Instance, k.SealAck(a))
}

// TestNewcomerWaits: an instance that starts waits for live ones that it cannot compare with, but not for ever. It waits
// as long as a person goes on who hides what they hold, and no longer.
func TestNewcomerWaits(t *testing.T) {
	const goesOn = time.Minute
	for name, tt := range map[string]struct {
		during  func(s *siege, k *codec.Key)
		atLeast time.Duration
		within  time.Duration
	}{
		"alone, it believes the instance that ended": {func(*siege, *codec.Key) {}, 0, time.Second},
		"another one has no room":                    {func(s *siege, k *codec.Key) { s.say(k, codec.Partial) }, 5 * time.Second, 8 * time.Second},
		"another one has a clock that is ahead":      {func(s *siege, k *codec.Key) { s.say(k, time.Now().Unix()+999) }, 5 * time.Second, 8 * time.Second},
		"another one never compares":                 {func(s *siege, k *codec.Key) { s.say(k, 0) }, 34 * time.Second, 44 * time.Second},
		"another one is always between two rounds":   {func(s *siege, k *codec.Key) { s.say(k, codec.Between) }, 34 * time.Second, 44 * time.Second},
		"another one reads on":                       {func(s *siege, k *codec.Key) { s.moves = 1; s.say(k, 0) }, goesOn, goesOn + 15*time.Second},
		"there may be others":                        {func(s *siege, _ *codec.Key) { s.crowd(time.Now(), 0) }, goesOn, goesOn + 15*time.Second},
		"there may be others, under another key":     {func(s *siege, _ *codec.Key) { s.crowd(time.Now(), 99) }, goesOn, goesOn + 15*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T) {
				s := newSiege(t, many)
				k := s.holder.current().First()
				if err := s.holder.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				tt.during(s, k)
				n, began := s.open("newcomer"), time.Now()
				for !n.Status().Ready {
					time.Sleep(500 * time.Millisecond)
					if d := time.Since(began); d > tt.within {
						t.Fatalf("after %v it is not ready: %+v", d, n.Status())
					} else if d < goesOn {
						tt.during(s, k)
					}
				}
				if d := time.Since(began); d < tt.atLeast {
					t.Errorf("it is ready after %v, want %v at least", d, tt.atLeast)
				}
				want(t, s.issuer, s.token, "refused", n)
			})
		})
	}
}
