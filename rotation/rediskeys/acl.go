package rediskeys

import (
	"fmt"
	"slices"
)

// A Role says what a user of Redis is for.
type Role string

const (
	// RoleWriter is for an instance with a [rotation.Rotator], and for the commands that change
	// rings.
	RoleWriter Role = "writer"

	// RoleReader is for an instance that only signs or verifies. Every change of a ring is refused,
	// and nothing of it is made. So it cannot put back what Redis lost: instances with the other
	// role have to run too. It is a guard against mistakes, and none against an intruder: an
	// instance writes its acknowledgements, and Redis checks the command, and not its arguments.
	RoleReader Role = "reader"
)

// An ACL is what the users of a service need, as arguments of ACL SETUSER after the name of the user.
// They do not touch its passwords.
type ACL struct {
	Server   []string // of each Redis server
	Sentinel []string // of each Sentinel; nil if the URL names none
}

// Every command that this package sends, or that its scripts call. A test removes each of them in turn.
var (
	readingCommands = []string{
		"eval", "evalsha", "info", "time", "hgetall", "hset", "hdel", "sismember", "smembers", "del",
		"xadd", "xrange", "xrevrange", "subscribe", "ping",
	}
	// Without these, many rings are read by scripts, which costs Redis more.
	fasterCommands   = []string{"watch", "unwatch", "multi", "exec", "memory|usage"}
	writingCommands  = []string{"sadd", "srem", "publish"}
	clusterCommands  = []string{"cluster|slots", "asking"} // asking: while a slot moves
	sentinelCommands = []string{"sentinel|get-master-addr-by-name", "sentinel|sentinels", "subscribe", "ping"}
)

// ACL returns the least rights with which a client of rawURL works, in a role. They suit
// Redis 6 and 7, but only Redis 7 tells the scripts what their user may do.
func (c Config) ACL(rawURL string, role Role) (ACL, error) {
	if role != RoleWriter && role != RoleReader {
		return ACL{}, fmt.Errorf("rediskeys: the role is %q, want %q or %q", role, RoleWriter, RoleReader)
	}
	if err := c.validate(); err != nil {
		return ACL{}, err
	}
	a, err := parseURL(rawURL)
	if err != nil {
		return ACL{}, &Error{Call: "the URL of Redis", Err: err}
	}
	commands := slices.Concat(readingCommands, fasterCommands)
	if role == RoleWriter {
		commands = append(commands, writingCommands...)
	}
	if a.kind == kindCluster {
		commands = append(commands, clusterCommands...)
	}
	if a.db != 0 {
		commands = append(commands, "select")
	}
	out := ACL{Server: rules([]string{"~" + c.prefix() + ":*", "&" + c.prefix() + ":*"}, commands)}
	if a.kind == kindSentinel {
		out.Sentinel = rules([]string{"&+switch-master", "&+replica-reconf-done"}, sentinelCommands)
	}
	return out, nil
}

// rules returns the rules of a user that may do nothing else.
func rules(patterns, commands []string) []string {
	all := append([]string{"on", "resetkeys", "resetchannels", "-@all"}, patterns...)
	for _, command := range commands {
		all = append(all, "+"+command)
	}
	return all
}
