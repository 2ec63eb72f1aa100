package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func (f *Facts) reach(s *Server) []Finding {
	if s.Err != "" {
		return []Finding{found("reach", Bad, "bring it back: the tenants whose buckets it has can neither rotate nor revoke", "%s does not answer: %s", s.Name, s.Err)}
	}
	return []Finding{found("reach", OK, "", "%s answers", s.Name)}
}

// major returns the first number of a version, or 0.
func major(version string) int {
	text, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// version wants 7.0, since older scripts cannot ask what their user may do (docs/operations.md).
func (f *Facts) version(s *Server) []Finding {
	version := s.Info["redis_version"]
	switch n := major(version); {
	case n == 0:
		return []Finding{found("version", Unknown, f.grant(s, "+info"), "the server does not say which version it is")}
	case n < 6:
		return []Finding{found("version", Bad, "use Redis 7.0 or later", "Redis %s is too old: its scripts lack what keyturn needs", version)}
	case n < 7:
		return []Finding{found("version", Warn, "use Redis 7.0 or later",
			"Redis %s: its scripts cannot ask what their user may do, and there min-replicas-to-write above 1 counts as 1", version)}
	}
	return []Finding{found("version", OK, "", "Redis %s", version)}
}

// role wants a primary: a replica answers with old data, so the scripts refuse it.
func (f *Facts) role(s *Server) []Finding {
	if role := s.Info["role"]; role != "" && role != "master" {
		return []Finding{found("role", Bad, "give the address of the primary, "+primaryOf(s)+", or redis-sentinel://HOST,HOST/NAME",
			"this Redis is a replica, whose answers are old: no instance uses it")}
	}
	return nil
}

func primaryOf(s *Server) string {
	if s.Info["master_host"] == "" {
		return "HOST:PORT"
	}
	return s.Info["master_host"] + ":" + s.Info["master_port"]
}

// set returns what to type for a setting, so that it survives a restart too.
func (s *Server) set(name, value string) string {
	return fmt.Sprintf("%s CONFIG SET %s %s && %s CONFIG REWRITE", s.CLI, name, value, s.CLI)
}

// grant returns what to type so that the user may ask.
func (f *Facts) grant(s *Server, rights ...string) string {
	user := f.Rights.User
	if user == "" {
		user = "USER"
	}
	return fmt.Sprintf("as an administrator: %s ACL SETUSER %s '%s'", s.CLI, user, strings.Join(rights, "' '"))
}

// persistence wants a log of all changes. A server that has nothing on its disk is empty after a
// restart; then only the instances that still run have the keys.
func (f *Facts) persistence(s *Server) []Finding {
	const check = "persistence"
	on := s.set("appendonly", "yes")
	save, known := s.Config["save"]
	switch {
	case s.Info["aof_enabled"] == "1" && s.Info["aof_last_write_status"] == "err":
		return []Finding{found(check, Bad, "make room on its disk, and see its log", "Redis cannot write to its log: it refuses changes")}
	case s.Info["rdb_last_bgsave_status"] == "err":
		return []Finding{found(check, Bad, "make room on its disk, and see its log; "+s.CLI+" BGSAVE", "Redis could not save its last dump: it may refuse changes")}
	case s.Info["aof_enabled"] == "1":
		return []Finding{found(check, OK, "", "each change is written to the disk (appendonly yes)")}
	case s.Info["aof_enabled"] == "" || !known:
		return []Finding{found(check, Unknown, f.grant(s, "+info", "+config|get")+"; of a managed Redis see whether it persists", "appendonly is off, or not to be seen, and this user may not read save")}
	case save == "":
		return []Finding{found(check, Bad, on, "nothing is written to the disk (appendonly no, save \"\"): after a restart Redis is empty, and only instances that still run have the keys")}
	}
	return []Finding{found(check, Warn, on, "only a dump is written (save %q, appendonly no): a crash loses the changes since the last one", save)}
}

// replicas wants a primary that stops accepting changes once it is cut off, before Dwell is over: the
// protocol counts on that. Without it, instances on both sides of a split brain disagree on keys.
func (f *Facts) replicas(s *Server) []Finding {
	const check = "replicas"
	n, err := strconv.Atoi(s.Info["connected_slaves"])
	if err != nil {
		return []Finding{found(check, Unknown, f.grant(s, "+info"), "the server does not say how many replicas it has")}
	}
	good, wants := s.Info["min_slaves_good_slaves"] // INFO has it only if both settings are above 0
	least, _ := strconv.Atoi(s.Config["min-replicas-to-write"])
	have, _ := strconv.Atoi(good)
	switch {
	case wants && have < max(1, least):
		return []Finding{found(check, Bad, "bring its replicas back, or let another server take over",
			"Redis refuses all changes: %s in reach, and min-replicas-to-write wants %d", count(have, "replica"), max(1, least))}
	case !wants && n > 0:
		return []Finding{found(check, Bad, s.set("min-replicas-to-write", "1"),
			"%s, but min-replicas-to-write is 0: after a failover a primary that is cut off goes on, and instances there reject good tokens", count(n, "replica"))}
	case !wants:
		return []Finding{found(check, Warn, "add a replica, and then: "+s.set("min-replicas-to-write", "1"), "there is no replica: if this machine is lost, so is what Redis had")}
	}
	return f.maxLag(s, n)
}

// maxLag compares how long a primary that was cut off acknowledges changes with Dwell, which is how
// long the policy allows for that.
func (f *Facts) maxLag(s *Server, n int) []Finding {
	const check = "replicas"
	seconds, err := strconv.Atoi(s.Config["min-replicas-max-lag"])
	if err != nil {
		return []Finding{found(check, Unknown, f.grant(s, "+config|get"), "this user may not read min-replicas-max-lag, which has to be shorter than Dwell, %s", words(f.Timing.Dwell))}
	}
	if lag := time.Duration(seconds) * time.Second; lag >= f.Timing.Dwell {
		fits := max(1, int((f.Timing.Dwell-1)/time.Second))
		do := s.set("min-replicas-max-lag", strconv.Itoa(fits))
		if f.Timing.Dwell <= time.Second {
			do = "give the rings a --dwell of more than 1s, and: " + do
		}
		return []Finding{found(check, Bad, do,
			"min-replicas-max-lag is %s, and the shortest Dwell of a ring %s: a primary that is cut off acknowledges changes for longer than the policy allows for", words(lag), words(f.Timing.Dwell))}
	}
	return []Finding{found(check, OK, "", "%s, and a primary without one accepts no change after %d s", count(n, "replica"), seconds)}
}

// eviction wants a Redis that never throws a key away.
func (f *Facts) eviction(s *Server) []Finding {
	const check = "eviction"
	policy, do := s.Info["maxmemory_policy"], s.set("maxmemory-policy", "noeviction")
	most, _ := strconv.ParseFloat(s.Info["maxmemory"], 64)
	used, _ := strconv.ParseFloat(s.Info["used_memory"], 64)
	switch {
	case policy == "":
		return []Finding{found(check, Unknown, f.grant(s, "+info"), "the server does not say its maxmemory-policy")}
	case strings.HasPrefix(policy, "allkeys-") && most > 0:
		return []Finding{found(check, Bad, do, "maxmemory-policy is %s: when Redis is full, it throws rings away", policy)}
	case policy != "noeviction":
		return []Finding{found(check, Warn, do, "maxmemory-policy is %s: it is that of a cache, which must not share this Redis", policy)}
	case most > 0 && used > 0.9*most:
		return []Finding{found(check, Warn, "raise maxmemory: "+s.set("maxmemory", strconv.FormatFloat(2*most, 'f', 0, 64)),
			"Redis is %.0f%% full: when it is, it refuses revocations too", 100*used/most)}
	}
	return []Finding{found(check, OK, "", "maxmemory-policy is noeviction")}
}

// clock compares the clock here with that of the server. TIME was answered between two moments of our
// clock, so only what lies outside of them is a difference.
func (f *Facts) clock(s *Server) []Finding {
	const check, do = "clock", "run NTP on every machine: chronyc tracking, or timedatectl"
	trip, skew := s.Received.Sub(s.Sent), f.Timing.ClockSkew
	off, way := s.Sent.Sub(s.Time), "ahead of"
	if s.Time.After(s.Received) {
		off, way = s.Time.Sub(s.Received), "behind"
	}
	switch {
	case s.Time.IsZero():
		return []Finding{found(check, Unknown, f.grant(s, "+time"), "this user may not ask for the clock of Redis")}
	case off > skew:
		return []Finding{found(check, Bad, do, "this clock is at least %s %s that of Redis, and the ClockSkew of a ring is %s", words(off), way, words(skew))}
	case trip > skew:
		return []Finding{found(check, Unknown, "mend the latency, and run doctor again", "the clocks cannot be compared: an answer took %s, and the ClockSkew of a ring is %s", words(trip), words(skew))}
	case off > skew/2:
		return []Finding{found(check, Warn, do, "this clock is %s %s that of Redis, more than half of ClockSkew, %s", words(off), way, words(skew))}
	}
	return []Finding{found(check, OK, "", "this clock and that of Redis agree to within %s", words(max(off, 0)+trip))}
}

// latency compares the slowest call with how long an instance waits for one.
func (f *Facts) latency() []Finding {
	const check, do = "latency", `find out what is slow, the network or Redis: redis-cli -u "$REDIS" --latency, and SLOWLOG GET`
	if len(f.Calls) == 0 {
		return nil
	}
	worst, deadline := time.Duration(0), f.Timing.deadline()
	for _, d := range f.Calls {
		worst = max(worst, d)
	}
	switch {
	case worst >= deadline:
		return []Finding{found(check, Bad, do, "a call took %s, and instances wait for %s: they are out of sync", words(worst), words(deadline))}
	case worst > deadline/4:
		return []Finding{found(check, Warn, do, "a call took %s, and instances wait for %s at most", words(worst), words(deadline))}
	}
	return []Finding{found(check, OK, "", "a call takes up to %s, and instances wait for %s", words(worst), words(deadline))}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// words says a duration in its two largest units, for people.
func words(d time.Duration) string {
	const day = 24 * time.Hour
	first, second := day, time.Hour
	switch {
	case d >= 2*day:
	case d >= time.Hour:
		first, second = time.Hour, time.Minute
	case d >= time.Minute:
		first, second = time.Minute, time.Second
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return max(time.Millisecond, d.Round(time.Millisecond)).String()
	}
	unit := map[time.Duration]string{day: "day", time.Hour: "hour", time.Minute: "minute", time.Second: "second"}
	text := count(int(d/first), unit[first])
	if rest := d % first / second; rest > 0 {
		text += " " + count(int(rest), unit[second])
	}
	return text
}
