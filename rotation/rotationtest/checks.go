package rotationtest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

// storeChecks are the subtests of TestStore. Each checks a sentence or two of the contract.
var storeChecks = []struct {
	name string
	run  func(*storeCheck)
}{
	{"an empty log gets a first entry", checkFirstEntry},
	{"a place that is not in the log is not proved", checkUnproved},
	{"a sync returns the tenants that changed", checkNews},
	{"a long log comes in pages", checkPages},
	{"the entries of a log", checkEntries},
	{"acknowledgements", checkAcks},
	{"many acknowledgements", checkManyAcks},
	{"no acknowledgement without a proof and a name", checkNoAck},
	{"forget", checkForget},
	{"digests", checkDigests},
	{"digests that are put off", checkLaterDigests},
	{"replies are in the order of the requests", checkOrder},
	{"a change is made to the ring it was decided on", checkConflict},
	{"a change is all or nothing", checkChange},
	{"bounds", checkBounds},
	{"publishing", checkPublish},
	{"a ring without fields does not exist", checkEmptied},
	{"tenants", checkTenants},
	{"names and values of any bytes", checkBytes},
	{"racing changes are made one by one", checkRace},
	{"syncs beside changes miss none", checkSyncRace},
	{"listen", checkListen},
	{"every method ends with its context", checkContext},
}

// checkRace lets several writers increment one field. Each loads the ring, writes, and tries again
// after a conflict.
func checkRace(c *storeCheck) {
	const writers, each = 8, 10
	bucket, t := sameBucket(1)
	start := c.start(bucket)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[rotation.Place]bool)
	for w := range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				s := c.load(t[0])
				count, _ := strconv.Atoi(string(s.Fields["n"]))
				change := rotation.Change{Tenant: t[0], If: s.Digest, Set: fields("n", strconv.Itoa(count+1), fmt.Sprint("w", w), "1")}
				switch r := c.write(change); r.Code {
				case rotation.Committed:
					mu.Lock()
					seen[r.Place] = true
					mu.Unlock()
					n++
				case rotation.Conflict:
				default:
					return
				}
			}
		})
	}
	wg.Wait()
	if n := string(c.load(t[0]).Fields["n"]); n != strconv.Itoa(writers*each) || len(seen) != writers*each {
		c.errorf("Write: %d increments of the value that was loaded gave %s, at %d places", writers*each, n, len(seen))
	}
	c.wantNews(bucket, start, t[0])
}

// checkSyncRace follows a log while writers append to it.
func checkSyncRace(c *storeCheck) {
	const writers, each = 4, 25
	bucket, t := sameBucket(writers * each)
	from := c.start(bucket)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for _, tenant := range t[w*each : (w+1)*each] {
				c.want(rotation.Committed, rotation.Change{Tenant: tenant, Set: fields("f", "1")})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	heard := make(map[string]bool)
	for last := false; ; {
		news, to := c.news(bucket, from)
		for _, e := range news {
			if heard[e.Tenant] {
				c.errorf("Sync: heard twice that %q changed once", e.Tenant)
			}
			heard[e.Tenant] = true
		}
		if from = to; last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if len(heard) != len(t) {
		c.errorf("Sync: heard of %d changes of %d", len(heard), len(t))
	}
}

// checkListen checks that Listen hears of a change, and that it ends with its context. The contract
// allows it to miss changes, so the check makes changes until Listen hears of one.
func checkListen(c *storeCheck) {
	bucket, t := sameBucket(1)
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	heard := make(chan int, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- c.s.Listen(ctx, func(b int) {
			select {
			case heard <- b:
			default:
			}
		})
	}()
	for deaf := true; deaf; {
		c.set(t[0], "f", "1")
		select {
		case b := <-heard:
			if b < 0 || b >= rotation.Buckets {
				c.errorf("Listen: heard of bucket %d", b)
			}
			deaf = b != bucket
		case err := <-ended:
			c.errorf("Listen ended before it heard of a change, within %v: %v", patience, err)
			return
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		c.errorf("Listen goes on %v after its context has ended", patience)
	}
}

func checkContext(c *storeCheck) {
	_, t := sameBucket(2)
	place := c.set(t[0], "f", "1").Place
	bucket := rotation.BucketOf(t[0])
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	start := time.Now()
	replies := c.s.Sync(ctx, "i", []rotation.SyncRequest{{Bucket: bucket, Place: place}, {Bucket: 1}})
	if len(replies) != 2 || replies[0].Err == nil || replies[1].Err == nil {
		c.errorf("Sync: the context had ended: %+v, want 2 errors", replies)
	}
	snapshots := c.s.Load(ctx, t)
	if len(snapshots) != 2 || snapshots[0].Err == nil || snapshots[1].Err == nil {
		c.errorf("Load: the context had ended: %+v, want 2 errors", snapshots)
	}
	if r, err := c.s.Write(ctx, rotation.Change{Tenant: t[1], Set: fields("f", "1"), Op: ring.OpMint, Nonce: "n"}); err == nil || r.Code != 0 && r.Code != rotation.NotMade {
		c.errorf("Write: the context had ended: code %d, error %v", r.Code, err)
	}
	if _, err := c.s.Tenants(ctx, []int{bucket}); err == nil {
		c.errorf("Tenants: the context had ended, and there is no error")
	}
	if _, _, err := c.s.Acks(ctx, bucket); err == nil {
		c.errorf("Acks: the context had ended, and there is no error")
	}
	if err := c.s.Forget(ctx, "i", []int{bucket}); err == nil {
		c.errorf("Forget: the context had ended, and there is no error")
	}
	c.s.Listen(ctx, func(int) {})
	if took := time.Since(start); took > patience {
		c.errorf("the context had ended, and the calls took %v", took)
	}
}

func checkReplica(c *storeCheck) {
	bucket, t := sameBucket(2)
	ack := ackOf(time.Now(), "ack")
	place := rotation.Place{ID: "1-1", Nonce: "n"}
	requests := []rotation.SyncRequest{{Bucket: bucket}, {Bucket: bucket, Place: place, Ack: ack, Acks: true}, {Bucket: bucket, Digests: t}}
	for _, instance := range []string{"", "i"} {
		replies := c.s.Sync(c.ctx, instance, requests)
		for _, r := range replies {
			c.wantRefused("Sync", r.Err)
		}
		if len(replies) != len(requests) {
			c.errorf("Sync returned %d replies to %d requests", len(replies), len(requests))
		}
	}
	for _, s := range c.s.Load(c.ctx, t) {
		c.wantRefused("Load", s.Err)
	}
	for _, digest := range []string{"", "another"} {
		change := rotation.Change{Tenant: t[0], If: digest, Set: fields("f", "1"), Op: ring.OpMint, Nonce: "n"}
		r, err := c.s.Write(c.ctx, change)
		c.wantRefused("Write", err)
		if r.Code != rotation.NotMade {
			c.errorf("Write: the code is %d, want NotMade", r.Code)
		}
	}
	_, err := c.s.Tenants(c.ctx, []int{bucket})
	c.wantRefused("Tenants", err)
	_, _, err = c.s.Acks(c.ctx, bucket)
	c.wantRefused("Acks", err)
	c.wantRefused("Forget", c.s.Forget(c.ctx, "i", []int{bucket}))
}

func (c *storeCheck) wantRefused(call string, err error) {
	if err == nil {
		c.errorf("%s: no error", call)
	}
}
