package rediskeys

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A LogRead asks for a page of the log of one bucket.
type LogRead struct {
	Bucket int       // from 0 to rotation.Buckets - 1
	After  string    // the ID of the entry before the page, or "" for the beginning
	From   time.Time // the earliest entry, if After is empty; zero for the oldest one
	Count  int       // how many entries at most
}

// A LogPage is a page of a log, the oldest entry first.
type LogPage struct {
	Err     error // if not nil, the other fields mean nothing
	Entries []LoggedEntry
	More    bool // there are entries after the last of these
}

// A LoggedEntry is an entry of a log as a person reads it. Anyone who can write to Redis can write
// one, with any text in any field, and can remove others. rotation.KEKs.EntryCheck says whether an
// instance wrote it. Nothing proves its ID.
type LoggedEntry struct {
	rotation.LogEntry
	ID      string
	At      time.Time // by Redis' clock, from the ID; zero if the ID says a time after 2199
	TooLong []string  // the names of fields that are longer than any that keyturn writes; they are empty
}

// Log reads pages of the logs of some buckets. It always returns as many pages as there are reads,
// in their order. Instances do not need it: they use [Store.Sync].
func (s *Store) Log(ctx context.Context, reads []LogRead) []LogPage {
	pages := make([]LogPage, len(reads))
	calls := make([]call, 0, len(reads))
	readOf := make([]int, 0, len(reads)) // the index of each call's read
	for i, r := range reads {
		if r.Bucket < 0 || r.Bucket >= rotation.Buckets {
			pages[i].Err = fmt.Errorf("rediskeys: log: there is no bucket %d", r.Bucket)
			continue
		}
		k := s.buckets[r.Bucket]
		calls = append(calls, call{keys: []string{k.log, k.ack}, args: []string{r.start(), strconv.Itoa(max(1, r.Count))}})
		readOf = append(readOf, i)
	}
	for n, r := range s.run(ctx, s.scripts.log, calls) {
		pages[readOf[n]] = readLog(r, reads[readOf[n]].Bucket)
	}
	return pages
}

// start returns the least ID of the page. XRANGE takes "(" before an ID only since Redis 6.2.
func (r *LogRead) start() string {
	ms, n, ok := parseID(r.After)
	switch {
	case !ok && r.From.UnixMilli() > 0:
		return strconv.FormatInt(r.From.UnixMilli(), 10)
	case !ok:
		return "-"
	case n < math.MaxUint64:
		return strconv.FormatUint(ms, 10) + "-" + strconv.FormatUint(n+1, 10)
	case ms < math.MaxUint64:
		return strconv.FormatUint(ms+1, 10)
	}
	return r.After // no ID is greater
}

func readLog(r reply, bucket int) LogPage {
	what := "log of bucket " + strconv.Itoa(bucket)
	if r.err != nil {
		return LogPage{Err: explain(what, r.err)}
	}
	in := replyReader{items: r.value}
	page := LogPage{More: in.flag()}
	entries := replyReader{items: in.item()}
	for entries.remaining() > 0 {
		f := replyReader{items: entries.item()}
		e := LoggedEntry{ID: f.text()}
		e.LogEntry = rotation.LogEntry{Op: ring.Op(f.text()), Tenant: f.text(), KID: f.text()}
		e.Seq, _ = strconv.Atoi(f.text()) // anyone may write anything there
		e.Actor, e.Nonce, e.MAC = f.text(), f.text(), []byte(f.text())
		e.TooLong = strings.Fields(f.text())
		e.At = timeOfID(e.ID)
		in.bad = in.bad || f.bad
		page.Entries = append(page.Entries, e)
	}
	if in.bad || entries.bad || page.More && len(page.Entries) == 0 {
		return LogPage{Err: explain(what, errUnexpected)}
	}
	return page
}

// timeOfID returns the time in the ID of an entry, or zero if it is after 2199.
func timeOfID(id string) time.Time {
	const latest = 7258118399999 // as in common.lua
	ms, _, ok := parseID(id)
	if !ok || ms > latest {
		return time.Time{}
	}
	return fromMillis(int64(ms))
}
