package rediskeys_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// logged reads the log of the bucket from after an entry on, a page at a time.
func logged(t *testing.T, s *rediskeys.Store, from rediskeys.LogRead) (all []rediskeys.LoggedEntry, pages int) {
	t.Helper()
	for {
		page := s.Log(t.Context(), []rediskeys.LogRead{{Bucket: -1}, from})[1]
		if page.Err != nil {
			t.Fatal(page.Err)
		}
		all, pages = append(all, page.Entries...), pages+1
		if !page.More {
			return all, pages
		}
		from.After = all[len(all)-1].ID
	}
}

func TestLogPages(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	if all, _ := logged(t, s, rediskeys.LogRead{Bucket: bucket}); len(all) != 0 {
		t.Errorf("an empty log has %d entries", len(all))
	}
	ids := []string{"5-1", "5-18446744073709551615", "6-0", "7-0", "7258118399999-0", "7258118400000-0", "18446744073709551615-18446744073709551615"}
	for i, id := range ids {
		do(t, server, "XADD", key("log"), id, "op", "mint", "tenant", tenant, "kid", fmt.Sprint(i), "seq", "9", "actor", "a", "nonce", "n", "mac", "m")
	}
	for count := range 8 {
		all, pages := logged(t, s, rediskeys.LogRead{Bucket: bucket, Count: count})
		if len(all) != len(ids) || count > 0 && pages != (len(ids)+count-1)/count {
			t.Fatalf("with %d a page: %d entries in %d pages", count, len(all), pages)
		}
		for i, e := range all {
			if e.ID != ids[i] || e.KID != fmt.Sprint(i) || e.Tenant != tenant || e.Op != "mint" || e.Seq != 9 || e.Actor != "a" || e.Nonce != "n" || string(e.MAC) != "m" || len(e.TooLong) > 0 {
				t.Errorf("entry %d is %+v", i, e)
			}
			if e.At.IsZero() != (i > 4) {
				t.Errorf("the date of %s is %v", e.ID, e.At)
			}
		}
	}
	if all, _ := logged(t, s, rediskeys.LogRead{Bucket: bucket, From: time.UnixMilli(6)}); len(all) != 5 {
		t.Errorf("from 6 ms on there are %d entries, want 5", len(all))
	}
	for _, b := range []int{-1, rotation.Buckets} {
		if s.Log(t.Context(), []rediskeys.LogRead{{Bucket: b}})[0].Err == nil {
			t.Errorf("bucket %d: no error", b)
		}
	}
}

// A field that is longer than any that keyturn writes is left out and named, and a page is bounded in
// bytes too.
func TestLogOversized(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	server, s := running(t)
	for name, most := range map[string]int{"op": 32, "tenant": 256, "kid": 256, "seq": 10, "actor": 256, "nonce": 64, "mac": 73728} {
		for extra := range 2 {
			do(t, server, "DEL", key("log"))
			do(t, server, "XADD", key("log"), "*", name, strings.Repeat("7", most+extra), name, strings.Repeat("8", 1+extra*most))
			all, _ := logged(t, s, rediskeys.LogRead{Bucket: bucket, Count: 9})
			e := all[0]
			text := map[string]string{"op": string(e.Op), "tenant": e.Tenant, "kid": e.KID, "seq": fmt.Sprint(e.Seq), "actor": e.Actor, "nonce": e.Nonce, "mac": string(e.MAC)}[name]
			if long := strings.HasPrefix(text, "7"); long == (extra == 1) || (len(e.TooLong) > 0) != (extra == 1) || extra == 1 && e.TooLong[0] != name {
				t.Errorf("%s of %d bytes: %.20q, too long %v", name, most+extra, text, e.TooLong)
			}
		}
	}
	do(t, server, "DEL", key("log"))
	for range 10 {
		do(t, server, "XADD", key("log"), "*", "op", "mint", "tenant", tenant, "mac", strings.Repeat("m", 73728))
	}
	if all, pages := logged(t, s, rediskeys.LogRead{Bucket: bucket, Count: 100}); len(all) != 10 || pages != 10 {
		t.Errorf("%d large entries in %d pages, want 10 in 10", len(all), pages)
	}
}
