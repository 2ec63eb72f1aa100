package rediskeys

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"sync"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/common.lua
	commonLua string
	//go:embed lua/sync.lua
	syncLua string
	//go:embed lua/load.lua
	loadLua string
	//go:embed lua/clock.lua
	clockLua string
	//go:embed lua/tenants.lua
	tenantsLua string
	//go:embed lua/write.lua
	writeLua string
	//go:embed lua/acks.lua
	acksLua string
	//go:embed lua/forget.lua
	forgetLua string
	//go:embed lua/discard.lua
	discardLua string
	//go:embed lua/mend.lua
	mendLua string
	//go:embed lua/log.lua
	logLua string
)

type scripts struct{ sync, load, clock, tenants, write, acks, forget, discard, mend, log script }

func newScripts() scripts {
	return scripts{
		sync:    newScript(commonLua + syncLua),
		load:    newScript(commonLua + loadLua),
		clock:   newScript(commonLua + clockLua),
		tenants: newScript(commonLua + tenantsLua),
		write:   newScript(commonLua + writeLua),
		acks:    newScript(commonLua + acksLua),
		forget:  newScript(commonLua + forgetLua),
		discard: newScript(commonLua + discardLua),
		mend:    newScript(commonLua + mendLua),
		log:     newScript(commonLua + logLua),
	}
}

// A script runs in Redis alone and whole. A server that has run it once knows it by
// its SHA-1, until the server restarts or its scripts are flushed.
type script struct{ text, sha string }

func newScript(text string) script {
	return script{text, sha1hex([]byte(text))}
}

// A call is one run of a script. All its keys belong to one bucket.
type call struct {
	keys []string
	args []string
}

func (c call) command(ctx context.Context, name, script string) *redis.Cmd {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	args = append(args, name, script, len(c.keys))
	for _, key := range c.keys {
		args = append(args, key)
	}
	for _, arg := range c.args {
		args = append(args, arg)
	}
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(3)
	cmd.SetStepCount(1) // otherwise the client of a Cluster sends COMMAND to find it out
	return cmd
}

// A reply is the result of a call, or its error.
type reply struct {
	value   any
	err     error
	notSent bool // the call did not leave this process
}

// run runs a script once for each call and returns as many replies, in the order of
// the calls. It takes one round trip to each server, and another one if that server
// does not know the script.
//
// If a connection breaks, the client may send a call again, and the script may run
// twice. Use [Store.runOnce] for a script that must not.
func (s *Store) run(ctx context.Context, sc script, calls []call) []reply {
	replies := make([]reply, len(calls))
	if err := ctx.Err(); err != nil { // the client itself looks only at deadlines
		for i := range replies {
			replies[i].err = err
		}
		return replies
	}
	var wg sync.WaitGroup
	for _, group := range s.groupByServer(ctx, calls) {
		wg.Go(func() {
			s.pipeline(ctx, calls, group, "evalsha", sc.sha, replies)
			var unknown []int
			for _, i := range group {
				if redis.HasErrorPrefix(replies[i].err, "NOSCRIPT") {
					unknown = append(unknown, i)
				}
			}
			s.pipeline(ctx, calls, unknown, "eval", sc.text, replies)
		})
	}
	wg.Wait()
	return replies
}

// groupByServer returns the indexes of the calls, grouped by the server that each
// goes to. The client of a Cluster could group them too. But if the context ends
// while its pipeline waits for one server, it reports the replies of the other
// servers as lost as well.
func (s *Store) groupByServer(ctx context.Context, calls []call) [][]int {
	cluster, ok := s.client.(*redis.ClusterClient)
	groups := make(map[*redis.Client][]int)
	for i, c := range calls {
		var server *redis.Client
		if ok {
			var err error
			if server, err = cluster.MasterForKey(ctx, c.keys[0]); err != nil {
				ok = false // no server is known yet: the pipeline returns that error
			}
		}
		groups[server] = append(groups[server], i)
	}
	list := make([][]int, 0, len(groups))
	for _, group := range groups {
		list = append(list, group)
	}
	return list
}

// pipeline runs the calls of one group in one round trip and stores their replies.
func (s *Store) pipeline(ctx context.Context, calls []call, group []int, name, script string, replies []reply) {
	if len(group) == 0 {
		return
	}
	pipe := s.client.Pipeline()
	cmds := make([]*redis.Cmd, len(group))
	for n, i := range group {
		cmds[n] = calls[i].command(ctx, name, script)
		_ = pipe.Process(ctx, cmds[n]) // queues it
	}
	_, err := pipe.Exec(ctx)
	lost := err
	for n, i := range group {
		replies[i] = replyTo(cmds[n], err)
		lost = cmp.Or(lost, replies[i].err)
	}
	s.askForSlots(ctx, lost)
}

// askForSlots lets the client of a Cluster ask again who has the slots, in the background, if a server
// could not be reached. A replica may have taken over. The client itself asks once a minute, and
// otherwise only where a server redirects it, which a dead one does not.
func (s *Store) askForSlots(ctx context.Context, err error) {
	if c, ok := s.client.(*redis.ClusterClient); ok && err != nil && !errors.As(err, new(redis.Error)) {
		c.ReloadState(ctx)
	}
}

// replyTo returns the reply to a command. err is the error of the whole pipeline.
// The client returns only err if Redis refuses a new connection, for example
// because of a wrong password: then the command has neither an error nor a value.
// Every script returns a value.
func replyTo(cmd *redis.Cmd, err error) reply {
	value, cmdErr := cmd.Result()
	switch {
	case cmdErr != nil:
		return reply{err: cmdErr}
	case value != nil:
		return reply{value: value}
	case err != nil:
		return reply{err: err}
	}
	return reply{err: errUnexpected}
}

// runOnce runs a script at most once. If the connection breaks, the caller does not
// know whether it ran.
func (s *Store) runOnce(ctx context.Context, sc script, c call) reply {
	for _, as := range [][2]string{{"evalsha", sc.sha}, {"eval", sc.text}} {
		if err := ctx.Err(); err != nil {
			return reply{err: err, notSent: true}
		}
		cmd := c.command(ctx, as[0], as[1])
		r := replyTo(cmd, s.client.Process(ctx, unrepeatedCmd{cmd}))
		s.askForSlots(ctx, r.err)
		if !redis.HasErrorPrefix(r.err, "NOSCRIPT") {
			return r
		}
	}
	return reply{err: redis.ErrNoScript}
}

// An unrepeatedCmd is a command that the client does not send again after a
// connection broke. The client still follows a Cluster's redirection, because the
// server that redirects has not run the command.
type unrepeatedCmd struct{ *redis.Cmd }

func (unrepeatedCmd) NoRetry() bool { return true }
