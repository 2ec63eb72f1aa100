// Package doctor decides what in a Redis, its rings and its clock would hurt. Each decision is a pure
// function of facts that the command gathers: nothing here asks Redis or reads a clock.
package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/rotation"
)

// A Level says how bad a [Finding] is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warn    Level = "warn"    // it hurts only together with another fault
	Bad     Level = "bad"     // it hurts, or is about to
	Unknown Level = "unknown" // it cannot be told; Do says what to grant or to give
)

// A Finding is what one check found, and what to type.
type Finding struct {
	Check  string  `json:"check"`
	Tenant *string `json:"tenant"` // null if it is not about one tenant
	Level  Level   `json:"level"`
	Found  string  `json:"found"`
	Do     *string `json:"do"` // null if there is nothing to do
}

// found returns a finding. do is empty if there is nothing to do.
func found(check string, level Level, do, format string, args ...any) Finding {
	f := Finding{Check: check, Level: level, Found: fmt.Sprintf(format, args...)}
	if do = strings.TrimSpace(do); do != "" {
		f.Do = &do
	}
	return f
}

// of makes findings about one tenant.
func of(tenant string, findings ...Finding) []Finding {
	for i := range findings {
		findings[i].Tenant = &tenant
	}
	return findings
}

// Facts are what was gathered about a Redis and how this machine reaches it.
type Facts struct {
	Unreachable string // why no server answers; then nothing else is known
	IsCluster   bool   // the URL is that of a Cluster
	Servers     []Server
	Cluster     *Cluster // nil if it is none
	Rights      Rights
	Calls       []time.Duration // how long calls took
	Instances   []Instance
	AcksErr     string // why the acknowledgements of some bucket could not be read, or ""
	Forged      int    // acknowledgements that are not authentic
	HasKEK      bool   // without it no ring was opened, and no acknowledgement
	Primary     string // the KEK that is first here; "" if that is not known
	Timing      Timing
	Flags       string // how keyturn commands reach this Redis, such as "--redis URL"
	Unnamed     int    // buckets whose tenants could not be read
	UnnamedWhy  string
	Now         time.Time
}

// Timing has the shortest times of the policies of the rings, or those of a default policy.
type Timing struct{ ClockSkew, Dwell, Freshness time.Duration }

// DefaultTiming returns the times of a default policy.
func DefaultTiming() Timing {
	p := rotation.Policy{}.WithDefaults()
	return Timing{p.ClockSkew, p.Dwell, p.Freshness}
}

// Least returns the shorter of each time.
func (t Timing) Least(p rotation.Policy) Timing {
	return Timing{min(t.ClockSkew, p.ClockSkew), min(t.Dwell, p.Dwell), min(t.Freshness, p.Freshness)}
}

// deadline returns how long an instance waits for Redis: a thirtieth of Freshness, at most 1 s (see
// rotation.Config.Deadline).
func (t Timing) deadline() time.Duration { return min(time.Second, t.Freshness/30) }

// A Server is a primary, as it told of itself.
type Server struct {
	Name   string            // host and port
	CLI    string            // how redis-cli reaches it
	Err    string            // why it does not answer, or ""
	Info   map[string]string // of INFO; empty if the user may not ask
	Config map[string]string // of CONFIG GET; nil if the user may not ask

	Sent, Time, Received time.Time // of TIME: its clock, between two moments of ours
}

// Check returns what is to say about the Redis, apart from its rings.
func (f *Facts) Check() []Finding {
	if f.Unreachable != "" {
		return []Finding{found("reach", Unknown, "check the URL, the network and the password; then run doctor again", "%s", f.Unreachable)}
	}
	var all []Finding
	for i := range f.Servers {
		all = append(all, f.reach(&f.Servers[i])...)
	}
	for _, check := range []func(*Server) []Finding{f.version, f.role, f.persistence, f.replicas, f.eviction, f.clock} {
		for i := range f.Servers {
			if s := &f.Servers[i]; s.Err == "" {
				all = append(all, f.naming(s, check(s))...)
			}
		}
	}
	return slices.Concat(all, f.rights(), f.cluster(), f.latency(), f.names(), f.instances())
}

// naming puts the server's name before what was found, if there are several servers.
func (f *Facts) naming(s *Server, findings []Finding) []Finding {
	if len(f.Servers) > 1 {
		for i := range findings {
			findings[i].Found = s.Name + ": " + findings[i].Found
		}
	}
	return findings
}

// names says that some tenants could not be looked at.
func (f *Facts) names() []Finding {
	if f.Unnamed == 0 {
		return nil
	}
	return []Finding{found("rings", Unknown, "mend that first; then run doctor again",
		"the tenants of %d of %d buckets cannot be read: %s", f.Unnamed, rotation.Buckets, f.UnnamedWhy)}
}

// Exit returns the exit code of a command that found all that: 1 if something would hurt, else 3 if
// something cannot be told, else 0.
func Exit(findings []Finding) int {
	code := 0
	for _, f := range findings {
		switch f.Level {
		case Bad:
			return 1
		case Unknown:
			code = 3
		}
	}
	return code
}
