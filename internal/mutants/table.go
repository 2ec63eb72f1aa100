package main

const (
	here      = "./rotation"
	simulator = "./rotation/rotationtest"
)

// mutants are the mistakes that others have made, and that we could make again.
var mutants = []mutant{
	{
		name: "without propagation",
		edits: []edit{
			{"rotation/decide.go", "return s.mint(p, policy, s.held.maxSeq()+1, activate, made)", "return s.mint(p, policy, s.held.maxSeq()+1, s.now, made)"},
		},
		pkg: simulator, run: "TestHistories",
	},
	{
		name:  "without repair",
		edits: []edit{{"rotation/pass.go", "case result.change == nil, p.k.cfg.OneShot, wrote:", "case true, wrote:"}},
		pkg:   simulator, run: "TestTimeline|TestHistories",
	},
	{
		name:  "without the fence",
		edits: []edit{{"rotation/held.go", "a > s.Timing.SignFor {", "a < 0 {"}},
		pkg:   simulator, run: "TestTimeline|TestHistories",
	},
	{
		name: "change detection by counter",
		edits: []edit{
			{"rotation/pass.go", "reply.Digests[i] != r.digest", "reply.Digests[i] != r.digest && false"},
			{"rotation/pass.go", "if r.dirty || reply.Resync {", "if r.dirty || b.place.ID == \"\" || reply.Resync && reply.Place.ID > b.place.ID {"},
			{"rotation/pass.go", "resync: reply.Resync,", "resync: reply.Resync && reply.Place.ID > b.place.ID,"},
		},
		pkg: simulator, run: "TestTimeline|TestHistories",
	},
	{
		name: "mint on a decrypt error",
		edits: []edit{
			{"rotation/rotator.go", "if err != nil {\n\t\treturn nil, cannotTell(err)\n\t}\n\ts := &scene", "_ = err\n\ts := &scene"},
			{"rotation/rotator.go", "if step.err != nil || !step.fresh(now, t.fresh) {", "if step.doubt {"},
			{"rotation/keyring.go", "return !s.bad && !s.doubt", "return !s.doubt"},
			{"rotation/decide.go", "if h := s.held; len(h.records)+len(h.tenantKeys) > 0 || !h.facts.Equal(Facts{}) {", "if s.held.newest() != nil {"},
		},
		pkg: here, run: "TestNoKeyIsMinted",
	},
	{
		name:  "retention a second short",
		edits: []edit{{"rotation/view.go", "return end.Add(p.MaxTokenTTL + p.Leeway)", "return end.Add(p.MaxTokenTTL + p.Leeway - 1e9)"}},
		pkg:   simulator, run: "TestHistories",
	},
	{
		name:  "no longer retention after a promotion",
		edits: []edit{{"rotation/view.go", "end = later(end, announced.Add(p.SignFor+p.ClockSkew))", "_ = announced"}},
		pkg:   simulator, run: "TestTimelineB",
	},
	{
		name:  "a merge does not announce promotions",
		edits: []edit{{"rotation/merge.go", "\tm.announcePromotions()\n", ""}},
		pkg:   simulator, run: "TestTimelineC",
	},
	{
		name: "fall back to an earlier key",
		edits: []edit{{"rotation/view.go", "if i := p.current(now); i >= 0 && p.state(i, i, now) == Signing {",
			"for i := p.current(now); i >= 0; i-- {\n\t\tif p.state(i, i, now) != Signing {\n\t\t\tcontinue\n\t\t}"}},
		pkg: simulator, run: "TestTimeline|TestHistories",
	},
	{
		name:  "slide by F + S",
		edits: []edit{{"rotation/view.go", "again.Add(r.Timing.Propagation)", "again.Add(r.Timing.Freshness+r.Timing.ClockSkew)"}},
		pkg:   simulator, run: "TestTimelineA",
	},
	{
		name: "no doubt",
		edits: []edit{
			{"rotation/trust.go", "t.doubt, t.until = !r.trusted && !r.vouched, r.sent.Add(w.doubt)", "t.doubt, t.until = false, r.sent.Add(w.doubt)"},
			{"rotation/trust.go", "t.doubt, t.until = true, r.sent.Add(w.doubt)", "t.doubt, t.until = false, r.sent.Add(w.doubt)"},
		},
		pkg: simulator, run: "TestTimeline(H|K)",
	},
	{
		name:  "a quiet period of two polls",
		edits: []edit{{"rotation/rotator.go", "max(2*t.w(), p.Freshness+p.ClockSkew)", "2*t.poll+0*p.Freshness"}},
		pkg:   simulator, run: "TestTimeline|TestHistories|TestBootstrap",
	},
	{
		name:  "no clamp of now",
		edits: []edit{{"rotation/view.go", "\tnow = later(now, p.past)\n\tfor i", "\tfor i"}},
		pkg:   simulator, run: "TestTimelineG",
	},
	{
		name:  "a stale merger does not republish",
		edits: []edit{{"rotation/merge.go", "if (m.away(&r.Timing) || !confirmed) && m.supplants(r) {", "if (m.away(&r.Timing) || !confirmed) && false {"}},
		pkg:   simulator, run: "TestTimelineH",
	},
	{
		name:  "a stale merger keeps its promotion",
		edits: []edit{{"rotation/merge.go", "m.forgotten[FactID{FactPromoted, r.KID}] = true", "_ = m.forgotten"}},
		pkg:   simulator, run: "TestTimelineH",
	},
	{
		name:  "promotion of one that is not first",
		edits: []edit{{"rotation/decide.go", "return &pending[i], i == 0, nil", "return &pending[i], true, nil"}},
		pkg:   simulator, run: "TestTimelineE",
	},
	{
		name:  "a TTL on the ring",
		edits: []edit{{"keystore/rediskeys/lua/write.lua", "redis.call('XADD'", "redis.call('EXPIRE', KEYS[1], 3600)\nredis.call('XADD'"}},
		pkg:   "./keystore/rediskeys", run: "TestFormat",
	},
	{
		name:  "an unauthenticated promotion",
		edits: []edit{{"rotation/seal.go", "if !hmac.Equal(mac, kek.mac(f.authenticated(tenant, kind, kid))) {", "if kind != FactPromoted && !hmac.Equal(mac, kek.mac(f.authenticated(tenant, kind, kid))) {"}},
		pkg:   here, run: "TestEveryByte|TestFact|TestOpen|TestTheStore",
	},
	{
		name:  "a key signs before it is confirmed",
		edits: []edit{{"rotation/held.go", "if !s.first && !good.After(s.Created.Add(s.Timing.Dwell)) {", "if false {"}},
		pkg:   simulator, run: "TestTimeline(N|H)|TestHistories",
	},
	{
		name:  "a revocation of a pending key is not waited for",
		edits: []edit{{"rotation/held.go", "wouldSign := ", "wouldSign := false && "}},
		pkg:   simulator, run: "TestTimelineL|TestHistories",
	},
	{
		name:  "what was collected returns",
		edits: []edit{{"rotation/decide.go", "if gone.After(s.held.facts.Gone) {", "if false {"}},
		pkg:   here, run: "TestACollectedKey",
	},
	{
		name:  "a holder does not assert",
		edits: []edit{{"rotation/merge.go", "\tm.assert()\n", ""}},
		pkg:   simulator, run: "TestTimelineD|TestHistories",
	},
}
