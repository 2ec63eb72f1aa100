package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/redistest"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/rotation/ring"
)

const (
	racers      = 8 // processes
	racersInOne = 8 // rotators in each

	// raceVariable is the environment variable that makes this program one of the
	// processes. It holds the address of the server and the name of the process.
	raceVariable = "KEYTURN_FAULTS_RACER"
)

// A raceResult is the result of a race.
type raceResult struct {
	Rounds int // how often a key was due
	Mints  int // how many mints the store has logged
	Twice  int // how many seqs were minted more than once
}

// race lets 64 rotators in 8 processes race on the ring of one tenant. In each round the pending
// key is revoked, so the next one is due, and all rotators hear of that at once.
func race(ctx context.Context, rounds int) (r raceResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rounds)*10*time.Second+time.Minute)
	defer cancel()
	server, err := redistest.Start(redistest.Options{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	starter, stop, err := startRacer(ctx, server.Addr(), "starter", true)
	if err != nil {
		return r, err
	}
	defer stop()
	t := tenants[0]
	if err := fast.makeRing(ctx, starter.Rotator, t); err != nil {
		return r, err
	}
	end, err := startRacers(ctx, server.Addr())
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for range rounds {
		if err := starter.makeDue(ctx, t.name); err != nil {
			return r, err
		}
		r.Rounds++
	}
	return r.read(ctx, server, t.name)
}

// A racer is a rotator with its keyring.
type racer struct {
	*rotation.Rotator
	keys *rotation.Keyring
}

// startRacer starts a racer and returns a function that ends it.
func startRacer(ctx context.Context, addr, name string, trust bool) (*racer, func(), error) {
	client, err := rediskeys.Open("redis://" + addr)
	if err != nil {
		return nil, nil, err
	}
	return startMember(ctx, client, rotation.Config{KEKs: newKEKs(), Tenants: []string{tenants[0].name}, Instance: name,
		Poll: fast.poll, Deadline: fast.deadline, TrustFirstRead: trust})
}

// startMember starts an instance without a signer, and returns a function that ends it.
func startMember(ctx context.Context, client redis.UniversalClient, cfg rotation.Config) (*racer, func(), error) {
	store, err := rediskeys.New(client, rediskeys.Config{})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	k, err := open(ctx, store, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	r, err := rotation.NewRotator(k)
	return &racer{r, k}, func() {
		_ = k.Close(context.Background()) // the error does not matter: the server may have ended
		_ = client.Close()
	}, err
}

// makeDue revokes the pending key as soon as the next one may be minted, and waits until that has
// happened.
func (r *racer) makeDue(ctx context.Context, tenant string) error {
	var newest ring.Key
	err := await(ctx, "a pending key to revoke", func() bool {
		s, err := r.keys.Tenant(tenant)
		if err != nil {
			return false
		}
		newest = newestOf(s.Ring)
		ripe := newest.Created.Add(fast.HeardWithin())
		return s.Fresh && newest.State == ring.Pending && time.Now().After(ripe) && time.Until(newest.ActivatesAt) > time.Second
	})
	if err != nil {
		return err
	}
	err = await(ctx, "the revocation", func() bool {
		_, err := r.Revoke(ctx, tenant, newest.KID)
		return err == nil
	})
	if err != nil {
		return err
	}
	return await(ctx, "the next key", func() bool {
		s, err := r.keys.Tenant(tenant)
		return err == nil && newestOf(s.Ring).Seq > newest.Seq
	})
}

func newestOf(r ring.Ring) (newest ring.Key) {
	for _, k := range r.Keys {
		if k.Seq > newest.Seq {
			newest = k
		}
	}
	return newest
}

// read counts the mints that the store has logged.
func (r raceResult) read(ctx context.Context, server *redistest.Server, tenant string) (raceResult, error) {
	entries, err := server.Client().XRange(ctx, logKey(tenant), "-", "+").Result()
	seqs := make(map[any]int)
	for _, e := range entries {
		if e.Values["op"] == string(ring.OpMint) {
			r.Mints++
			seqs[e.Values["seq"]]++
		}
	}
	for _, n := range seqs {
		r.Twice += min(1, n-1)
	}
	return r, err
}

// startRacers starts the processes and returns when all their rotators are in sync. end ends the
// processes; they also end with this process.
func startRacers(ctx context.Context, addr string) (end func() error, err error) {
	var all []*exec.Cmd
	var inputs []io.Closer
	end = func() error {
		var errs []error
		for i, cmd := range all {
			errs = append(errs, inputs[i].Close(), cmd.Wait())
		}
		return errors.Join(errs...)
	}
	var outputs []io.Reader
	for i := range racers {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", raceVariable, addr, i))
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			return nil, errors.Join(err, end())
		}
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(err, end())
		}
		all, inputs, outputs = append(all, cmd), append(inputs, in), append(outputs, out)
	}
	for _, out := range outputs {
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
			return nil, errors.Join(fmt.Errorf("a racer said %q: %v", line, err), end())
		}
	}
	return end, nil
}

// runRacer runs a process of the race until its standard input ends.
func runRacer(what string) error {
	addr, name, _ := strings.Cut(what, " ")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := atOnce(racersInOne, func(i int) error {
		r, stop, err := startRacer(ctx, addr, fmt.Sprintf("racer-%s-%d", name, i), false)
		if err != nil {
			return err
		}
		go func() {
			defer stop()
			_ = r.Run(ctx) // returns nil
		}()
		return r.keys.WaitReady(ctx)
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
