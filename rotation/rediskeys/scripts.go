package rediskeys

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
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
	//go:embed lua/tenants.lua
	tenantsLua string
	//go:embed lua/write.lua
	writeLua string
	//go:embed lua/acks.lua
	acksLua string
	//go:embed lua/forget.lua
	forgetLua string
)

type scripts struct{ sync, load, tenants, write, acks, forget script }

func newScripts() scripts {
	return scripts{
		sync:    newScript(commonLua + syncLua),
		load:    newScript(commonLua + loadLua),
		tenants: newScript(commonLua + tenantsLua),
		write:   newScript(commonLua + writeLua),
		acks:    newScript(commonLua + acksLua),
		forget:  newScript(forgetLua),
	}
}

// A script is known to a server by its SHA-1, once it has run there.
type script struct{ text, sha string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text))
	return script{text, hex.EncodeToString(sum[:])}
}

// A call is one run of a script. All its keys are of one bucket.
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
	cmd.SetStepCount(1) // else a Cluster's client asks a server for it, with COMMAND
	return cmd
}

// A reply is what became of a call.
type reply struct {
	value any
	err   error
}

// run runs a script once for each of the calls, in one round trip to each server,
// and returns as many replies. A call may run more than once, if a connection
// breaks: not for what may not.
func (s *Store) run(ctx context.Context, sc script, calls []call) []reply {
	replies := make([]reply, len(calls))
	if err := ctx.Err(); err != nil { // the client looks at deadlines alone
		for i := range replies {
			replies[i].err = err
		}
		return replies
	}
	var wg sync.WaitGroup
	for _, group := range s.byServer(ctx, calls) {
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

// byServer returns the indexes of the calls by the server that each will go to.
// A Cluster's client would do that too; but when its pipeline meets the end of
// the context while it waits for one server, it takes the others' replies for
// lost too.
func (s *Store) byServer(ctx context.Context, calls []call) [][]int {
	cluster, ok := s.client.(*redis.ClusterClient)
	groups := make(map[*redis.Client][]int)
	for i, c := range calls {
		var server *redis.Client
		if ok {
			var err error
			if server, err = cluster.MasterForKey(ctx, c.keys[0]); err != nil {
				ok = false // the client knows no server yet: it will say so
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
	for n, i := range group {
		replies[i] = readReply(cmds[n], err)
	}
}

// readReply returns a command's reply, given the error of all that was done with
// it. If a new connection is refused with an error of Redis' own, such as for a
// wrong password, that is all that the client tells: the command has neither an
// error nor a value. No script returns nothing.
func readReply(cmd *redis.Cmd, err error) reply {
	value, own := cmd.Result()
	switch {
	case own != nil:
		return reply{err: own}
	case value != nil:
		return reply{value: value}
	case err != nil:
		return reply{err: err}
	}
	return reply{err: errUnexpected}
}

// runOnce runs a script, and never twice: if the connection breaks, nobody knows
// whether it ran.
func (s *Store) runOnce(ctx context.Context, sc script, c call) reply {
	for _, as := range [][2]string{{"evalsha", sc.sha}, {"eval", sc.text}} {
		if err := ctx.Err(); err != nil {
			return reply{err: err}
		}
		cmd := c.command(ctx, as[0], as[1])
		r := readReply(cmd, s.client.Process(ctx, once{cmd}))
		if !redis.HasErrorPrefix(r.err, "NOSCRIPT") {
			return r
		}
	}
	return reply{err: redis.ErrNoScript}
}

// once is a command that the client does not send again when a connection breaks.
// It does go on to the right server of a Cluster, as the wrong one has not run it.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }
