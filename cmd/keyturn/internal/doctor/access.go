package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Rights are what the server says that the user of the URL may do.
type Rights struct {
	User   string // "" if that could not be asked
	Err    string // why the server could not be asked, or ""
	Old    bool   // the server cannot say it: it is older than 7.0
	Denied []Denial
}

// A Denial is a command that the user may not call, with the answer of the server.
type Denial struct {
	Command string // as ACL SETUSER names it
	Answer  string
}

// A Call is a command that keyturn uses, as it uses it.
type Call struct {
	Command string // as ACL SETUSER names it
	Args    []any  // the command and its arguments
}

// Undetailed is the answer of a server that says only yes or no.
const Undetailed = "the server refuses it"

// Calls returns the commands that package rediskeys uses. A test compares them with those that
// docs/operations.md tells an operator to allow.
func Calls(inCluster bool) []Call {
	n := len(AllCalls()) - len(special)
	if inCluster {
		n += 2
	}
	return AllCalls()[:n]
}

// special are the commands that not every client sends: two in a Cluster, and one for a database
// other than 0.
var special = [][]any{{"asking"}, {"cluster", "slots"}, {"select", 1}}

// AllCalls returns the commands that a client may send, for whatever Redis.
func AllCalls() []Call {
	const log, ack, tenants, ring, channel = "kt:{0}:log", "kt:{0}:ack", "kt:{0}:tenants", "kt:{0}:ring:doctor", "kt:changed"
	var calls []Call
	for _, args := range [][]any{
		{"eval", "return 1", 1, log}, {"evalsha", strings.Repeat("0", 40), 1, log}, {"info", "replication"}, {"time"},
		{"hgetall", ring}, {"hset", ring, "f", "v"}, {"hdel", ack, "f"}, {"sadd", tenants, "m"}, {"srem", tenants, "m"},
		{"sismember", tenants, "m"}, {"smembers", tenants}, {"del", ack}, {"xadd", log, "*", "f", "v"},
		{"xrange", log, "-", "+"}, {"xrevrange", log, "+", "-"}, {"publish", channel, "0"}, {"subscribe", channel}, {"ping"},
	} {
		calls = append(calls, Call{args[0].(string), args})
	}
	for _, args := range special {
		name := args[0].(string)
		if name == "cluster" {
			name = "cluster|slots"
		}
		calls = append(calls, Call{name, args})
	}
	return calls
}

// rights wants a user who may call all that keyturn calls.
func (f *Facts) rights() []Finding {
	const check = "rights"
	s := f.anyServer()
	if s == nil {
		return nil
	}
	user := f.Rights.User
	if user == "" {
		user = "USER"
	}
	compare := fmt.Sprintf(`compare %s ACL GETUSER %s with docs/operations.md, "Before production"`, s.CLI, user)
	r := &f.Rights
	switch {
	case r.Old:
		return []Finding{found(check, Unknown, compare, "this server cannot say what its users may do (ACL DRYRUN is of Redis 7.0)")}
	case r.Err != "":
		return []Finding{found(check, Unknown, f.grant(s, "+acl|whoami", "+acl|dryrun")+"; or "+compare, "this user may not ask what it may do: %s", r.Err)}
	case len(r.Denied) > 0:
		var names, answers []string
		for _, d := range r.Denied {
			names, answers = append(names, d.Command), append(answers, d.right())
		}
		slices.Sort(answers)
		do := f.grant(s, slices.Compact(answers)...)
		if r.Denied[0].Answer == Undetailed {
			do = fmt.Sprintf("type into %s what keyturn keys acl --user %s prints; the user may lack its keys and channels", s.CLI, user)
		}
		return []Finding{found(check, Bad, do, "user %s may not call %s, which keyturn needs: %s", r.User, strings.Join(names, ", "), r.Denied[0].Answer)}
	}
	return []Finding{found(check, OK, "", "user %s may call all that keyturn needs", r.User)}
}

// right returns the right that is missing, by what the server says of it: the key, the channel, or the
// command itself.
func (d *Denial) right() string {
	switch {
	case strings.Contains(d.Answer, " key"):
		return "~kt:*"
	case strings.Contains(d.Answer, " channel"):
		return "&kt:*"
	}
	return "+" + d.Command
}

// anyServer returns a server that answers, or nil.
func (f *Facts) anyServer() *Server {
	for i := range f.Servers {
		if f.Servers[i].Err == "" {
			return &f.Servers[i]
		}
	}
	return nil
}

// A Cluster is what its servers say of it.
type Cluster struct {
	Err     string  // why its slots could not be asked for, or ""
	Missing []Slots // that no server has
}

// Slots are a range of slots of a Cluster, both included.
type Slots struct{ From, To int }

// Uncovered returns the slots that none of the ranges has.
func Uncovered(ranges []Slots) (missing []Slots) {
	const slots = 16384
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b Slots) int { return a.From - b.From })
	next := 0
	for _, r := range append(ranges, Slots{slots, slots}) {
		if r.From > next {
			missing = append(missing, Slots{next, r.From - 1})
		}
		next = max(next, r.To+1)
	}
	return missing
}

// cluster wants every slot to be served, and a Cluster that goes on if some are not.
func (f *Facts) cluster() []Finding {
	const check = "cluster"
	s := f.anyServer()
	switch {
	case s == nil:
		return nil
	case s.Info["cluster_enabled"] == "1" && !f.IsCluster:
		return []Finding{found(check, Bad, "give redis-cluster://HOST,HOST", "this Redis is part of a Cluster, and the URL is that of a single server: most tenants are elsewhere")}
	case f.Cluster == nil:
		return nil
	case f.Cluster.Err != "":
		return []Finding{found(check, Unknown, f.grant(s, "+cluster|slots"), "its slots cannot be asked for: %s", f.Cluster.Err)}
	case len(f.Cluster.Missing) > 0:
		n, first := 0, f.Cluster.Missing[0]
		for _, r := range f.Cluster.Missing {
			n += r.To - r.From + 1
		}
		return []Finding{found(check, Bad, s.CLI+" CLUSTER SLOTS, and give them to a server: redis-cli --cluster fix "+s.Name,
			"no server has %d of 16384 slots, such as %d to %d: the tenants there have no keys", n, first.From, first.To)}
	}
	return f.coverage(s)
}

// coverage wants cluster-require-full-coverage no: else one primary that is away takes all down.
func (f *Facts) coverage(s *Server) []Finding {
	const check = "cluster"
	full := ""
	for i := range f.Servers {
		if value, ok := f.Servers[i].Config["cluster-require-full-coverage"]; ok && full != "yes" {
			s, full = &f.Servers[i], value
		}
	}
	switch full {
	case "yes":
		return []Finding{found(check, Warn, "on each primary: "+s.set("cluster-require-full-coverage", "no"), "cluster-require-full-coverage is yes: one primary that is away takes all tenants down")}
	case "no":
		return []Finding{found(check, OK, "", "all slots are served, and one primary that is away takes only its own tenants down")}
	}
	return []Finding{found(check, Unknown, f.grant(s, "+config|get"), "all slots are served; this user may not read cluster-require-full-coverage, which has to be no")}
}
