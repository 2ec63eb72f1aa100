package main

const (
	here      = "./rotation"
	simulator = "./rotation/rotationtest"
	decisions = "./rotation/internal/protocol"
	syncing   = "./rotation/internal/synced"
	checking  = "./verifier"
	fetching  = "./keystore/jwks"
	tries     = "./verifier/internal/trie"
	revoking  = "./verifier/revocations"
	revRules  = "./verifier/revocations/internal/rules"
	revCodec  = "./verifier/revocations/internal/codec"
	serving   = "./cmd/keyturn/internal/server"
)

// mutants are mistakes that rotation libraries, or earlier versions of this one, have made.
var mutants = []mutant{
	{
		name:  "an error shows a part of a password",
		edits: []edit{{"cmd/keyturn/config_file.go", "if !allFields(all) {", "if !allFields(all) && false {"}},
		tests: tests{"./cmd/keyturn", "TestNoLoginInErrorsOfConfig$"}, want: "rightpart72",
	},
	{
		name: "without propagation",
		edits: []edit{
			{"rotation/internal/protocol/mint.go", "return b.mint(p, policy, b.Copy.MaxSeq()+1, activate, ", "return b.mint(p, policy, b.Copy.MaxSeq()+1, b.Now, "},
			{"rotation/internal/protocol/signing.go", "if k.First || good.After(k.Created.Add(k.Timing.Dwell)) {", "if true {"}, // otherwise the key waits until it is confirmed, and the mistake shows nothing
		},
		tests: tests{simulator, "TestTimeline(C|D|M)$"}, want: "I2",
	},
	{
		name:  "a key without kid that an instance is too old for counts as no key",
		edits: []edit{{"rotation/lookup.go", "case c == nil || c.Alone(id.KID):", "case true:"}},
		tests: tests{"./rotation", "TestAcceptedKeyOutOfStep$"}, want: "TestAcceptedKeyOutOfStep",
	},
	{
		name:  "a hit does not ask stores that answer together",
		edits: []edit{{"verifier/tenant.go", "r.several = r.unsure != nil && !(ok && alone.Alone())", "r.several = false && ok && alone.Alone()"}},
		tests: tests{checking, "TestCacheAndSeveralStores$"}, want: "TestCacheAndSeveralStores",
	},
	{
		name:  "a token without kid asks for no new key",
		edits: []edit{{"verifier/verify.go", "if why == nil && !(p.kid == \"\" && r.asks()) || !r.plausible(p, w.now) {", "if why == nil || !r.plausible(p, w.now) {"}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a wrong signature asks for a kid that is held",
		edits: []edit{{"verifier/verify.go", "!(p.kid == \"\" && r.asks())", "!r.asks()"}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a token without kid is bad while its source cannot be asked",
		edits: []edit{{"verifier/verify.go", "case outage != nil:\n\t\treturn nil, outage\n\t}\n\treturn nil, refuse(ErrSignature)", "case outage != nil:\n\t\treturn nil, refuse(ErrSignature)\n\t}\n\treturn nil, refuse(ErrSignature)"}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a key is tried twice",
		edits: []edit{{"verifier/verify.go", "!slices.Contains(tried, k) && ", ""}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a token without kid is judged by the time before its wait",
		edits: []edit{{"verifier/verify.go", "claimsFirst = false", "_ = claimsFirst"}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a token that expired while it waited is not bad",
		edits: []edit{{"verifier/verify.go", "case !r.plausible(p, w.now): // it has expired meanwhile\n\t\treturn nil, refuse(ErrSignature)", "case false:\n\t\treturn nil, refuse(ErrSignature)"}},
		tests: tests{checking, "TestNoKIDAsksForItsKey$"}, want: "TestNoKIDAsksForItsKey",
	},
	{
		name:  "a key without kid is the answer to a token without kid",
		edits: []edit{{"keystore/jwks/use.go", "if q.kid == \"\" {\n\t\treturn e.m.serves(now) && !q.served", "if false {\n\t\treturn e.m.serves(now) && !q.served"}},
		tests: tests{fetching, "TestTokenWithoutKIDOfRotatedIssuer$"}, want: "TestTokenWithoutKIDOfRotatedIssuer",
	},
	{
		name:  "a source that has begun to answer is asked again",
		edits: []edit{{"keystore/jwks/use.go", "return e.m.serves(now) && !q.served", "return false"}},
		tests: tests{fetching, "TestTokenWithoutKIDNeedsOneFetch$"}, want: "TestTokenWithoutKIDNeedsOneFetch",
	},
	{
		name:  "a wake does not count as asking for tokens without kid",
		edits: []edit{{"keystore/jwks/use.go", "if asked && (q.kid == \"\" || !answers) {", "if asked && !answers {"}},
		tests: tests{fetching, "TestTokenWithoutKIDNeedsOneFetch$"}, want: "TestTokenWithoutKIDNeedsOneFetch",
	},
	{
		name:  "tokens without kid are not remembered",
		edits: []edit{{"keystore/jwks/use.go", "if asked && (q.kid == \"\" || !answers) {", "if asked && q.kid != \"\" && !answers {"}},
		tests: tests{fetching, "TestForgedTokensWithoutKIDAreRemembered$"}, want: "TestForgedTokensWithoutKIDAreRemembered",
	},
	{
		name:  "a cache is believed that it has the newest key without kid",
		edits: []edit{{"keystore/jwks/use.go", "case asked && q.kid == \"\" && e.set", "case q.kid == \"\" && e.set"}},
		tests: tests{fetching, "TestTokensWithoutKIDShareAFetch$"}, want: "TestTokensWithoutKIDShareAFetch",
	},
	{
		name:  "Refresh hides that there is another set",
		edits: []edit{{"keystore/jwks/use.go", "case asked && q.kid == \"\" && e.set.generation != q.generation:", "case false:"}},
		tests: tests{fetching, "TestRefreshWithoutKID$"}, want: "TestRefreshWithoutKID",
	},
	{
		name:  "news of one store ends the question to another, without a kid",
		edits: []edit{{"keystore/join.go", "errs[i] == nil && id.KID != \"\" {", "errs[i] == nil {"}},
		tests: tests{"./keystore", "TestJoinRefreshWithoutKID$"}, want: "TestJoinRefreshWithoutKID",
	},
	{
		name:  "news of one store hides that another cannot tell",
		edits: []edit{{"keystore/join.go", "if news && (id.KID != \"\" || miss == nil || isMiss(miss)) {", "if news {"}},
		tests: tests{"./keystore", "TestJoinRefreshWithoutKID$"}, want: "TestJoinRefreshWithoutKID",
	},
	{
		name:  "records of HS* are believed",
		edits: []edit{{"rotation/internal/seal/record.go", "if !box.isAuthentic(blob[:n], h.place(), blob[n:]) {", "if false {"}},
		tests: tests{"./rotation/internal/seal", "TestEveryByteIsAuthenticated"}, want: "TestEveryByteIsAuthenticated",
	},
	{
		name:  "a part of a ring in MessagePack counts as the ring",
		edits: []edit{{"rotation/rediskeys/reply.go", "\tif at < len(packed) {\n\t\treturn nil, false\n\t}\n", ""}},
		tests: tests{"./rotation/rediskeys", "TestUnpackFieldsRefuses"}, want: "TestUnpackFieldsRefuses",
	},
	{
		name:  "without repair",
		edits: []edit{{"rotation/internal/synced/sync.go", "case result.Change == nil, run.k.cfg.OneShot && !r.changed, wrote:", "case true, wrote:"}},
		tests: tests{simulator, "TestHistories"}, want: "I7",
	},
	{
		name:  "without the fence",
		edits: []edit{{"rotation/internal/protocol/signing.go", "a > k.Timing.SignFor {", "a < 0 {"}},
		tests: tests{simulator, "TestTimeline(C|H)$"}, want: "I5",
	},
	{
		name: "change detection by counter",
		edits: []edit{
			{"rotation/internal/synced/sync.go", "run.k.hash(reply.Digests[i]) != r.digest", "run.k.hash(reply.Digests[i]) != r.digest && false"},
			{"rotation/internal/synced/sync.go", "if r.dirty || reply.Resync {", "if r.dirty || b.place.ID == \"\" || reply.Resync && reply.Place.ID > b.place.ID {"},
			{"rotation/internal/synced/entries.go", "Resync: reply.Resync,", "Resync: reply.Resync && reply.Place.ID > b.place.ID,"},
		},
		tests: tests{simulator, "TestHistories"}, want: "I12",
	},
	{
		name: "mint on a decrypt error",
		edits: []edit{
			{"rotation/internal/synced/sync.go", "errors.As(err, &failed)", "_ = err"},
			{"rotation/apply.go", "if err != nil {\n\t\treturn b, unavailable(err)\n\t}\n\treturn b, nil", "_ = err\n\treturn b, nil"},
		},
		tests: tests{simulator, "TestMintOnDecryptError"}, want: "I10",
	},
	{
		name:  "retention a second short",
		edits: []edit{{"rotation/ring/plan.go", "return end.Add(k.TokenTTL() + p.Leeway)", "return end.Add(k.TokenTTL() + p.Leeway - 1e9)"}},
		tests: tests{simulator, "TestTimeline(A|B|M)$"}, want: "I4",
	},
	{
		name:  "no longer retention after a promotion",
		edits: []edit{{"rotation/ring/plan.go", "end = later(end, announced.Add(p.SignFor+p.Dwell+p.ClockSkew))", "_ = announced"}},
		tests: tests{simulator, "TestTimelineB$"}, want: "I1",
	},
	{
		name: "a sync proves what the store has now, to a key",
		edits: []edit{
			{"rotation/internal/protocol/base.go", "t := p.HeardWithin() + p.ReaderStaleness", "t := p.Freshness + p.ClockSkew + p.ReaderStaleness"},
			{"rotation/internal/protocol/base.go", "r.Timing.HeardWithin()+r.Timing.ReaderStaleness", "r.Timing.Freshness+r.Timing.ClockSkew+r.Timing.ReaderStaleness"},
		},
		tests: tests{simulator, "TestTimelineLag$"}, want: "I2",
	},
	{
		name:  "a sync proves what the store has now, to retention",
		edits: []edit{{"rotation/ring/plan.go", "announced.Add(p.SignFor+p.Dwell+p.ClockSkew)", "announced.Add(p.SignFor+p.ClockSkew)"}},
		tests: tests{simulator, "TestTimelineLag$"}, want: "I1",
	},
	{
		name:  "a sync proves what the store has now, to a policy",
		edits: []edit{{"rotation/ring/policy.go", "p.MaxTokenTTL + p.Leeway, p.HeardWithin()}", "p.MaxTokenTTL + p.Leeway, p.Freshness + p.ClockSkew}"}},
		tests: tests{simulator, "TestTimelineM$"}, want: "TestTimelineM",
	},
	{
		name:  "a merge does not announce promotions",
		edits: []edit{{"rotation/internal/protocol/merge.go", "\tm.announcePromotions()\n", ""}},
		tests: tests{simulator, "TestTimelineC$"}, want: "I1",
	},
	{
		name: "fall back to an earlier key",
		edits: []edit{{"rotation/ring/plan.go", "if i := p.Current(now); i >= 0 && p.state(i, i, now) == Signing {",
			"for i := p.Current(now); i >= 0; i-- {\n\t\tif p.state(i, i, now) != Signing {\n\t\t\tcontinue\n\t\t}"}},
		tests: tests{simulator, "TestTimeline(G|N)$"}, want: "TestTimelineN",
	},
	{
		name:  "slide by F + S",
		edits: []edit{{"rotation/ring/plan.go", "again.Add(r.Timing.Propagation)", "again.Add(r.Timing.Freshness+r.Timing.ClockSkew)"}},
		tests: tests{simulator, "TestTimelineA$"}, want: "TestTimelineA",
	},
	{
		name: "no doubt",
		edits: []edit{
			{"rotation/internal/protocol/syncstate.go", "s.Recovering, s.Until = !r.Trusted && !known, r.Sent.Add(l.Recover)", "s.Recovering, s.Until = false, r.Sent.Add(l.Recover)"},
			{"rotation/internal/protocol/syncstate.go", "s.Recovering, s.Until = true, r.Sent.Add(l.Recover)", "s.Recovering, s.Until = false, r.Sent.Add(l.Recover)"},
		},
		tests: tests{simulator, "TestTimelineH$"}, want: "TestTimelineH",
	},
	{
		name:  "a quiet period of two polls",
		edits: []edit{{"rotation/run.go", "max(2*r.k.times.Load().MaxPollGap(), r.k.cfg.Policy.HeardWithin())", "2 * r.k.times.Load().Poll"}},
		tests: tests{simulator, "TestTimelineK"}, want: "TestTimelineKHoldersComeLate",
	},
	{
		name:  "no clamp of now",
		edits: []edit{{"rotation/ring/plan.go", "\tnow = later(now, p.Past)\n\tfor i", "\tfor i"}},
		tests: tests{simulator, "TestTimelineG$"}, want: "I11",
	},
	{
		name:  "a stale merger does not republish",
		edits: []edit{{"rotation/internal/protocol/restore.go", "if (m.away(&r.Timing) || !confirmed) && m.supplants(r) {", "if (m.away(&r.Timing) || !confirmed) && false {"}},
		tests: tests{simulator, "TestTimelineH$"}, want: "TestTimelineH",
	},
	{
		name:  "a stale merger keeps its promotion",
		edits: []edit{{"rotation/internal/protocol/restore.go", "m.forgotten[ring.FactID{Kind: ring.FactPromoted, KID: r.KID}] = true", "_ = m.forgotten"}},
		tests: tests{simulator, "TestTimelineH"}, want: "TestTimelineHPromoted",
	},
	{
		name:  "promotion of one that is not first",
		edits: []edit{{"rotation/internal/protocol/promote.go", "return &pending[i], i == 0 || pending[0].Waiting(), nil", "return &pending[i], true, nil"}},
		tests: tests{simulator, "TestTimelineE$"}, want: "TestTimelineE",
	},
	{
		name:  "a TTL on the ring",
		edits: []edit{{"rotation/rediskeys/lua/write.lua", "local id = redis.pcall('XADD'", "redis.call('EXPIRE', KEYS[1], 3600)\nlocal id = redis.pcall('XADD'"}},
		tests: tests{"./rotation/rediskeys", "TestFormat"}, want: "TestFormat",
	},
	{
		name:  "an unauthenticated promotion",
		edits: []edit{{"rotation/internal/seal/fact.go", "if !kek.authentic(useFacts, mac,", "if kind != ring.FactPromoted && !kek.authentic(useFacts, mac,"}},
		tests: tests{"./rotation/internal/seal", "TestEveryByteIsAuthenticated"}, want: "TestEveryByteIsAuthenticated",
	},
	{
		name:  "a key signs before it is confirmed",
		edits: []edit{{"rotation/internal/protocol/signing.go", "if k.First || good.After(k.Created.Add(k.Timing.Dwell)) {", "if true {"}},
		tests: tests{simulator, "TestTimelineN$"}, want: "TestTimelineN",
	},
	{
		name:  "no key signs in place of a forced one",
		edits: []edit{{"rotation/internal/protocol/signing.go", "if i == 0 || !ok ||", "if i >= 0 || !ok ||"}},
		tests: tests{simulator, "TestTimelineForced$"}, want: "I11",
	},
	{
		name:  "one step back at most",
		edits: []edit{{"rotation/internal/protocol/signing.go", "if i == 0 || !ok ||", "if i == 0 || !ok || k != s ||"}},
		tests: tests{simulator, "TestTimelineForced$"}, want: "I11",
	},
	{
		name:  "the fence of revoked keys is asked of the forced one",
		edits: []edit{{"rotation/internal/protocol/signing.go", "ring.ByEffect(*q, *k) > 0", "ring.ByEffect(*q, *s) > 0"}},
		tests: tests{simulator, "TestTimelineLeft$"}, want: "I1",
	},
	{
		name:  "the step back is bound by the announcement",
		edits: []edit{{"rotation/internal/protocol/signing.go", "promoted, ok := c.Facts.At(ring.FactPromoted, k.KID)", "promoted, ok := c.Facts.At(ring.FactAnnounced, k.KID)"}},
		tests: tests{decisions, "TestSigningInPlaceOfForcedKeys"}, want: "TestSigningInPlaceOfForcedKeys",
	},
	{
		name:  "the step back has no bound",
		edits: []edit{{"rotation/internal/protocol/signing.go", "t.After(promoted.Add(c.Plan.InOrder[i-1].Timing.SignFor))", "promoted.IsZero()"}},
		tests: tests{decisions, "TestSigningInPlaceOfForcedKeys"}, want: "TestSigningInPlaceOfForcedKeys",
	},
	{
		name:  "a key that was not promoted has a step back",
		edits: []edit{{"rotation/internal/protocol/signing.go", "promoted, ok := c.Facts.At(ring.FactPromoted, k.KID)", "promoted, ok := k.ActivatesAt, true"}},
		tests: tests{decisions, "TestSigningInPlaceOfForcedKeys"}, want: "TestSigningInPlaceOfForcedKeys",
	},
	{
		name:  "a step back to a revoked key",
		edits: []edit{{"rotation/internal/protocol/signing.go", "!c.Plan.InOrder[i-1].RevokedAt.IsZero() || ", ""}},
		tests: tests{simulator, "TestTimelineForcedRevoked$"}, want: "TestTimelineForcedRevoked",
	},
	{
		name:  "the key that signs in place is revoked without a word",
		edits: []edit{{"rotation/internal/protocol/revoke.go", "case until.IsZero():", "case true:"}},
		tests: tests{simulator, "TestTimelineForcedRevoked$"}, want: "TestTimelineForcedRevoked",
	},
	{
		name:  "a replacement waits for no instance",
		edits: []edit{{"rotation/internal/protocol/replace.go", "case !now && b.Now.Before(b.usableFrom(&pending[next])):", "case false:"}},
		tests: tests{decisions, "TestReplace$"}, want: "TestReplace",
	},
	{
		name:  "a replacement leaves a time without a signer",
		edits: []edit{{"rotation/internal/protocol/replace.go", "if until := b.unconfirmedUntil(r); !until.IsZero() {", "if until := b.unconfirmedUntil(r); false && !until.IsZero() {"}},
		tests: tests{decisions, "TestReplace$"}, want: "TestReplace",
	},
	{
		name:  "a replacement that is done goes on",
		edits: []edit{{"rotation/internal/protocol/replace.go", "slices.Contains(kids, k.KID) && k.State != ring.Revoked", "slices.Contains(kids, k.KID)"}},
		tests: tests{decisions, "TestReplace"}, want: "TestReplaceInAnyRing",
	},
	{
		name:  "a leaked key is revoked while an instance signs with it",
		edits: []edit{{"cmd/keyturn/replace.go", "if next.Next == ring.OpRevoke && !b.replaceCommand.now {", "if false {"}},
		tests: tests{"./cmd/keyturn", "TestKeysReplaceWaitsForInstances"}, want: "TestKeysReplaceWaitsForInstances",
	},
	{
		name:  "a dry run makes the change",
		edits: []edit{{"rotation/apply.go", "if b.dryRun {", "if false {"}},
		tests: tests{here, "TestDryRun"}, want: "TestDryRun",
	},
	{
		name:  "a forced promotion does not say its cost",
		edits: []edit{{"rotation/internal/protocol/signing.go", "last = later(last, end)", "_ = end"}},
		tests: tests{decisions, "TestForcedPromotionSaysItsCost"}, want: "TestForcedPromotionSaysItsCost",
	},
	{
		name:  "a revocation of a pending key is not waited for",
		edits: []edit{{"rotation/internal/protocol/signing.go", "wouldSign := ", "wouldSign := false && "}},
		tests: tests{simulator, "TestTimelineL$"}, want: "TestTimelineL",
	},
	{
		name:  "what was collected returns",
		edits: []edit{{"rotation/internal/protocol/collect.go", "if gone.After(b.Copy.Facts.CollectedUntil) {", "if false {"}},
		tests: tests{decisions, "TestCollect$"}, want: "TestCollect", // holders mark what they drop as well
	},
	{
		name:  "a holder does not assert",
		edits: []edit{{"rotation/internal/protocol/merge.go", "\tm.assert()\n", ""}},
		tests: tests{simulator, "TestTimelineD"}, want: "TestTimelineDScheduled",
	},
	{
		name:  "a collected key is revived",
		edits: []edit{{"rotation/internal/protocol/merge.go", "return ring.ByEffect(held, k) < 0 })", "return false })"}},
		tests: tests{simulator, "TestTimelineGone"}, want: "TestTimelineGoneIsNotRevived",
	},
	{
		name:  "what is gone is asserted by whoever was away",
		edits: []edit{{"rotation/internal/protocol/merge.go", "m.rolledBack = m.superseded()", "m.rolledBack = false"}},
		tests: tests{simulator, "TestTimelineGone"}, want: "I1",
	},
	{
		name:  "a roll-out makes tenant keys without end",
		edits: []edit{{"rotation/internal/protocol/tenantkey.go", "tk.Born != b.Origin && (b.Agreed || tk.KEK == b.Primary)", "tk.Born != b.Primary"}},
		tests: tests{simulator, "TestTimelineRollout$"}, want: "TestTimelineRollout",
	},
	{
		name:  "a tenant key is used for ever",
		edits: []edit{{"rotation/internal/protocol/tenantkey.go", "return tk == nil || tk.Born != b.Origin && (b.Agreed || tk.KEK == b.Primary)", "return tk == nil"}},
		tests: tests{simulator, "TestTimelineRollout$"}, want: "I14",
	},
	{
		name:  "a rewrap makes a tenant key young again",
		edits: []edit{{"rotation/internal/protocol/tenantkey.go", "tk.Born != b.Origin && (b.Agreed || tk.KEK == b.Primary)", "b.Agreed && tk.KEK != b.Primary"}},
		tests: tests{decisions, "TestMintMakesTenantKey"}, want: "TestMintMakesTenantKey",
	},
	{
		name:  "a rekey asks no one",
		edits: []edit{{"rotation/internal/protocol/tenantkey.go", "if !b.Agreed {", "if false {"}},
		tests: tests{decisions, "TestRekey"}, want: "TestRekey",
	},
	{
		name:  "a tenant key of no record stays",
		edits: []edit{{"rotation/internal/protocol/tenantkey.go", "if !b.Copy.uses(tk.ID, p.Remove, p.RemoveAccepts) {", "if false {"}},
		tests: tests{decisions, "TestCollectTenantKeys"}, want: "TestCollectTenantKeys",
	},
	{
		name:  "who lacks the KEK of a ring writes all the same",
		edits: []edit{{"rotation/internal/protocol/merge.go", "case m.ClockOff || m.lacksKEK():", "case m.ClockOff:"}},
		tests: tests{simulator, "TestTimelineEnd$"}, want: "TestTimelineEnd",
	},
	{
		name:  "a ring that was replaced is left alone",
		edits: []edit{{"rotation/internal/protocol/merge.go", "(newest == nil || !m.inSync(&newest.Timing))", "(newest == nil || !m.inSync(&newest.Timing) || true)"}},
		tests: tests{simulator, "TestTimelineRealm$"}, want: "TestTimelineRealm",
	},
	{
		name:  "a merge writes its own wrap over the store's",
		edits: []edit{{"rotation/internal/protocol/propose.go", "if m.Stored.tenantKey(tk.ID) == nil && m.Unreadable", "if m.Unreadable"}},
		tests: tests{decisions, "TestStoredWrapWins"}, want: "TestStoredWrapWins",
	},
	{
		name:  "a count that fell is left alone",
		edits: []edit{{"rotation/internal/protocol/propose.go", "== 0 && !m.older() && !head {", "== 0 && !head {"}},
		tests: tests{decisions, "TestMergeOutcountsOlderStore"}, want: "TestMergeOutcountsOlderStore",
	},
	{
		name:  "the log's revocation is not restored",
		edits: []edit{{"rotation/internal/protocol/merge.go", "m.with(result, m.union, m.proposal(m.union, nil))", "result"}},
		tests: tests{decisions, "TestMergeLearnsEnds"}, want: "TestMergeLearnsEnds",
	},
	{
		name:  "a promotion is learned from the log",
		edits: []edit{{"rotation/internal/protocol/merge.go", "if id.Kind == ring.FactRevoked {", "if id.Kind != 0 {"}},
		tests: tests{decisions, "TestMergeLearnsEnds"}, want: "TestMergeLearnsEnds",
	},
	{
		name:  "an instance vouches for what it knows nothing of",
		edits: []edit{{"rotation/internal/protocol/acks.go", "!a.GoodSince.IsZero() && a.Ends == f.Ends && (", "!a.GoodSince.IsZero() && ("}},
		tests: tests{decisions, "TestVouched"}, want: "TestVouched",
	},
	{
		name:  "a revocation ends well without a holder",
		edits: []edit{{"rotation/internal/protocol/watch.go", "a.Applied && a.Holds", "a.Applied"}},
		tests: tests{decisions, "TestWatch"}, want: "TestWatch",
	},
	{
		name:  "a revocation ends well without acknowledgements",
		edits: []edit{{"rotation/internal/protocol/watch.go", "case w.nonce == \"\" || !w.revokes || w.confirmed:", "case true:"}},
		tests: tests{here, "TestAwaitWhereAllAcksAreHidden"}, want: "TestAwaitWhereAllAcksAreHidden",
	},
	{
		name:  "who was live before a change is forgotten",
		edits: []edit{{"rotation/apply.go", "receipt.before = live.Acks(\"\")", "_ = live"}},
		tests: tests{here, "TestAwaitMissesWhoWasThereBefore"}, want: "TestAwaitMissesWhoWasThereBefore",
	},
	{
		name:  "who listens is no sign of an instance",
		edits: []edit{{"rotation/rotator.go", "told: result.Told, ", ""}},
		tests: tests{here, "TestAwaitWhereAllAcksAreHidden"}, want: "TestAwaitWhereAllAcksAreHidden",
	},
	{
		name:  "an instance without the ring says that it holds it",
		edits: []edit{{"rotation/internal/synced/entries.go", "protocol.Entry{Op: e.Op, Nonce: e.Nonce}", "protocol.Entry{Op: e.Op, Nonce: e.Nonce, Holds: true}"}},
		tests: tests{here, "TestAwaitWantsAHolder"}, want: "TestAwaitWantsAHolder",
	},
	{
		name:  "a garbled field keeps a revocation from being acknowledged",
		edits: []edit{{"rotation/internal/protocol/acks.go", "(whole || e.Op == ring.OpRevoke || e.Op == ring.OpDestroy)", "whole"}},
		tests: tests{decisions, "TestApplied"}, want: "TestApplied",
	},
	{
		name:  "a rotation in a ring that is not whole is acknowledged",
		edits: []edit{{"rotation/internal/synced/entries.go", "r.news.changes, !r.dirty)", "r.news.changes, true)"}},
		tests: tests{here, "TestRotationInRingThatIsNotWholeIsNotApplied"}, want: "TestRotationInRingThatIsNotWholeIsNotApplied",
	},
	{
		name:  "mints push a revocation out of an acknowledgement",
		edits: []edit{{"rotation/internal/protocol/acks.go", "\t\treturn 2\n", "\t\treturn 0\n"}},
		tests: tests{decisions, "TestRemember"}, want: "TestRemember",
	},
	{
		name:  "a command does not restore what it sealed again",
		edits: []edit{{"rotation/internal/synced/loop.go", "if w == nil {", "if w == nil || w.Facts.Equal(ring.Facts{}) {"}},
		tests: tests{here, "TestAwaitRestoresARekeyedRing"}, want: "TestAwaitRestoresARekeyedRing",
	},
	{
		name:  "a KEK is the same one in all realms",
		edits: []edit{{"rotation/internal/held/change.go", "append(name.Check[:], name.Realm[:]...)", "name.Check[:]"}},
		tests: tests{here, "TestRealmMoveHasNoGap"}, want: "TestRealmMoveHasNoGap",
	},
	{
		name:  "a key of another realm is made under another KEK",
		edits: []edit{{"rotation/apply.go", "Origin: held.Origin(", "Origin: held.KEK("}},
		tests: tests{here, "TestMovedRingKeepsItsTenantKey"}, want: "TestMovedRingKeepsItsTenantKey",
	},
	{
		name:  "a rekey to the KEK of before asks no one",
		edits: []edit{{"rotation/rekey.go", "b.have.Born() == b.Origin && b.Copy.SealingKEK() == b.Primary", "b.have.Born() == b.Origin"}},
		tests: tests{here, "TestRekeyBackToTheFirstKEK"}, want: "TestRekeyBackToTheFirstKEK",
	},
	{
		name:  "acknowledgements that cannot be read refuse a revocation",
		edits: []edit{{"rotation/apply.go", "b.unasked != nil && p.Op != ring.OpRevoke", "b.unasked != nil"}},
		tests: tests{here, "TestRevocationDuringRolloutNeedsNoAcks"}, want: "TestRevocationDuringRolloutNeedsNoAcks",
	},
	{
		name:  "the revocations of a removed ring are forgotten",
		edits: []edit{{"rotation/internal/synced/rings.go", "if empty && r.news != nil &&", "if false && r.news != nil &&"}},
		tests: tests{here, "TestRevocationOfRemovedRingIsKept"}, want: "TestRevocationOfRemovedRingIsKept",
	},
	{
		name:  "the revocations of removed rings are kept without bound",
		edits: []edit{{"rotation/internal/synced/rings.go", "empty = awaited > maxAwaited", "empty = false"}},
		tests: tests{here, "TestRevocationsOfRemovedRingsAreBounded"}, want: "TestRevocationsOfRemovedRingsAreBounded",
	},
	{
		name:  "recovering ends while others restore",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "case s.Recovering && r.Merging && s.Good.IsZero():", "case false:"}},
		tests: tests{decisions, "TestMergesExtendRecovering"}, want: "TestMergesExtendRecovering",
	},
	{
		name:  "the log teaches nothing",
		edits: []edit{{"rotation/internal/synced/entries.go", "r.hear(e, ends)", "_ = ends\n\t\t\t\tr.hear(e, ring.Facts{})"}},
		tests: tests{simulator, "TestTimelineWriter$"}, want: "I13",
	},
	{
		name:  "a revocation just in time is free",
		edits: []edit{{"rotation/internal/protocol/revoke.go", "\tp.NoSignerUntil = b.unconfirmedUntil(r)\n", ""}},
		tests: tests{decisions, "TestRevocationOfPendingKeySaysItsCost"}, want: "TestRevocationOfPendingKeySaysItsCost",
	},
	{
		name:  "an heir is revoked without a word",
		edits: []edit{{"rotation/internal/protocol/revoke.go", "case b.isCurrent(kid), b.isHeir(kid):", "case b.isCurrent(kid):"}},
		tests: tests{simulator, "TestTimelineHeir$"}, want: "TestTimelineHeir",
	},
	{
		name:  "a dropped key leaves no mark",
		edits: []edit{{"rotation/internal/protocol/merge.go", "\t\t\tu.Facts.Collect(u.Facts.Dead, created)\n", ""}},
		tests: tests{simulator, "TestTimelineMark$"}, want: "TestTimelineMark",
	},
	{
		name:  "an instance that was away marks what it dropped",
		edits: []edit{{"rotation/internal/protocol/merge.go", "len(m.Unreadable) == 0 && m.inSync(&r.Timing) && ", "len(m.Unreadable) == 0 && "}},
		tests: tests{simulator, "TestTimelineMarkAway$"}, want: "TestTimelineMarkAway",
	},
	{
		name:  "an instance verifies until its keys end, whatever signs then",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "if !last.Hold && !last.Waiting() { // those", "if false { // those"}},
		tests: tests{decisions, "TestVerifyingEndsBeforeAnUnknownKeySigns|TestCanVerify"}, want: "TestVerifyingEndsBeforeAnUnknownKeySigns",
	},
	{
		name:  "an instance is ready although its keys have ended",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "k.RevokedAt.IsZero() && !dropped && at.Before(end)", "false && !dropped && at.Before(end)"}},
		tests: tests{simulator, "TestTimelineReady$"}, want: "I15",
	},
	{
		name:  "a key that a failover may have lost keeps an instance ready",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "i == 0 || k.First || complete.After(k.Created.Add(k.Timing.Dwell))", "true"}},
		tests: tests{decisions, "TestCanVerify$"}, want: "TestCanVerify",
	},
	{
		name:  "an instance is ready although an unknown key signs",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "end = endOfPeriod(last)", "end = endOfPeriod(last).Add(time.Hour)"}},
		tests: tests{simulator, "TestTimelineReady$"}, want: "I15",
	},
	{
		name:  "the unknown key is expected by this instance's clock",
		edits: []edit{{"rotation/internal/protocol/verifying.go", ".Add(-2 * last.Timing.ClockSkew)", ""}},
		tests: tests{decisions, "TestVerifyingEndsBeforeAnUnknownKeySigns"}, want: "TestVerifyingEndsBeforeAnUnknownKeySigns",
	},
	{
		name:  "a newcomer in doubt verifies",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "case c == nil || !clocks || s.Knew.IsZero():", "case c == nil || !clocks:"}},
		tests: tests{decisions, "TestCanVerify"}, want: "TestCanVerify",
	},
	{
		name:  "steady clocks prove that the store's was set",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "by := v.Jumped", "by := true"}},
		tests: tests{decisions, "TestPausedInstanceIsNeverRight"}, want: "TestPausedInstanceIsNeverRight",
	},
	{
		name:  "one peer is believed against the others",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "case theirs && !mine, a.At.After(v.Now.Add(2 * v.Skew)):", "case false:"}},
		tests: tests{decisions, "TestStoreJumped"}, want: "TestStoreJumped",
	},
	{
		name:  "the own word counts as a peer's",
		edits: []edit{{"rotation/internal/protocol/verifying.go", "a.Unreadable || a.Instance == self:", "a.Unreadable:"}},
		tests: tests{here, "TestAloneNoClockIsRight"}, want: "TestAloneNoClockIsRight",
	},
	{
		name:  "a snapshot says that the instance was in sync",
		edits: []edit{{"rotation/internal/synced/snapshot.go", "Restored: complete, Knew: good, Recovering: true}", "Restored: complete, Knew: good, Good: good}"}},
		tests: tests{simulator, "TestTimelineSnapshot$"}, want: "TestTimelineSnapshot",
	},
	{
		name:  "keys of a snapshot live from the start on",
		edits: []edit{{"rotation/internal/synced/state.go", "c.ApplyEnds(nil, r.syncStatus().Complete)", "c.ApplyEnds(nil, time.Now())"}},
		tests: tests{here, "TestOldSnapshotIsAnInstanceThatWasCutOff"}, want: "TestOldSnapshotIsAnInstanceThatWasCutOff",
	},
	{
		name:  "a snapshot makes the first read certain",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "return s.Complete.Equal(s.Restored)", "return s.Complete.IsZero()"}},
		tests: tests{decisions, "TestSnapshotIsNoSync"}, want: "TestSnapshotIsNoSync",
	},
	{
		name:  "a snapshot of the future is used",
		edits: []edit{{"rotation/internal/synced/snapshot.go", "newest.After(now.Add(skew)) {", "newest.IsZero() {"}},
		tests: tests{here, "TestSnapshotsThatAreNotUsed"}, want: "TestSnapshotsThatAreNotUsed",
	},
	{
		name:  "a snapshot is of any store",
		edits: []edit{{"rotation/internal/seal/snapshot.go", "if of != store {", "if false {"}},
		tests: tests{here, "TestSnapshotOfAnotherPrefix"}, want: "TestSnapshotOfAnotherPrefix",
	},
	{
		name:  "an instance that read nothing replaces the snapshot",
		edits: []edit{{"rotation/internal/synced/snapshot.go", "if err != nil || !newest.After(k.saver.newest) {", "if err != nil {"}},
		tests: tests{here, "TestSnapshotsThatAreNotUsed"}, want: "TestSnapshotsThatAreNotUsed",
	},
	{
		name:  "a strange key does not wait",
		edits: []edit{{"rotation/internal/protocol/merge.go", "\tm.postpone()\n", ""}},
		tests: tests{simulator, "TestTimelineH"}, want: "I2",
	},
	{
		name:  "a replica that accepts writes is used",
		edits: []edit{{"rotation/rediskeys/lua/common.lua", "if role ~= 'master' then", "if false then"}},
		tests: tests{"./rotation/rediskeys", "TestReplicaIsRefused"}, want: "TestReplicaIsRefused",
	},
	{
		name:  "a primary is refused, and a replica used",
		edits: []edit{{"rotation/rediskeys/lua/common.lua", "if role ~= 'master' then", "if role == 'master' then"}},
		tests: tests{"./rotation/rediskeys", "TestReplicaIsRefused"}, want: "TestReplicaIsRefused",
	},
	{
		name:  "a refused change may have been made",
		edits: []edit{{"rotation/rediskeys/store.go", `if code == "refused" && !in.bad {`, "if false {"}},
		tests: tests{"./rotation/rediskeys", "TestReplicaIsRefused|TestRefusedChangeIsNotMade"}, want: "TestRefusedChangeIsNotMade",
	},
	{
		name:  "a change that broke half way was not made",
		edits: []edit{{"rotation/rediskeys/store.go", `if code == "refused" && !in.bad {`, "if !in.bad {"}},
		tests: tests{"./rotation/rediskeys", "TestScriptThatFailsHalfWay"}, want: "TestScriptThatFailsHalfWay",
	},
	{
		name:  "only a change that broke half way was not made",
		edits: []edit{{"rotation/rediskeys/store.go", `if code == "refused" && !in.bad {`, `if code != "refused" && !in.bad {`}},
		tests: tests{"./rotation/rediskeys", "TestRefusedChangeIsNotMade|TestScriptThatFailsHalfWay"}, want: "TestScriptThatFailsHalfWay",
	},
	{
		name:  "a key behind one with Hold has a date",
		edits: []edit{{"rotation/internal/protocol/mint.go", "activate, holds(last))", "activate, false)"}},
		tests: tests{simulator, "TestTimelineHoldRevoked$"}, want: "TestTimelineHoldRevoked",
	},
	{
		name:  "a key that waits goes by its date",
		edits: []edit{{"rotation/ring/plan.go", "if r.Waits {", "if false {"}},
		tests: tests{simulator, "TestTimelineHold$"}, want: "TestTimelineHold",
	},
	{
		name:  "a key with Hold ends by its date",
		edits: []edit{{"rotation/ring/plan.go", "if k.Hold {", "if false {"}},
		tests: tests{decisions, "TestLongHistories"}, want: "TestLongHistories",
	},
	{
		name:  "a policy mints behind the key that waits",
		edits: []edit{{"rotation/internal/protocol/mint.go", "\tb.revokeWaiting(p, \"\")\n", ""}},
		tests: tests{simulator, "TestTimelineHold$"}, want: "TestTimelineHold",
	},
	{
		name:  "a promotion leaves others that wait",
		edits: []edit{{"rotation/internal/protocol/promote.go", "\tb.revokeWaiting(p, k.KID)\n", ""}},
		tests: tests{decisions, "TestHold$"}, want: "TestHold",
	},
	{
		name:  "after a hold no key is pending",
		edits: []edit{{"rotation/internal/protocol/promote.go", "if k.Waiting() {", "if false {"}},
		tests: tests{decisions, "TestHold$|TestStrayKey"}, want: "TestHold",
	},
	{
		name:  "a stray key waits for ever",
		edits: []edit{{"rotation/run.go", "case b.RevokeStray() != nil:", "case false:"}},
		tests: tests{simulator, "TestTimelineHoldSplit$"}, want: "TestTimelineHoldSplit",
	},
	{
		name:  "a stray key is heir enough",
		edits: []edit{{"rotation/internal/protocol/mint.go", "(len(waiting) == 0 || c == nil || !c.Hold)", "(len(waiting) == 0 || c == nil)"}},
		tests: tests{decisions, "TestStrayKey"}, want: "TestStrayKey",
	},
	{
		name:  "the heir of a revoked key is a stray one",
		edits: []edit{{"rotation/internal/protocol/hold.go", "b.headless() || c.Hold", "c.Hold && !b.headless()"}},
		tests: tests{decisions, "TestStrayKey"}, want: "TestStrayKey",
	},
	{
		name:  "a key that waited and was revoked has no end",
		edits: []edit{{"rotation/ring/plan.go", "k.DroppedAt = k.RevokedAt\n", "_ = k\n"}},
		tests: tests{decisions, "TestCollectBesideRevokedWaitingKey"}, want: "TestCollectBesideRevokedWaitingKey",
	},
	{
		name:  "tokens of an imported key live as the policy says",
		edits: []edit{{"rotation/ring/plan.go", "return end.Add(k.TokenTTL() + p.Leeway)", "return end.Add(p.MaxTokenTTL + p.Leeway)"}},
		tests: tests{simulator, "TestTimelineHold$"}, want: "I1",
	},
	{
		name:  "the life of imported tokens is the policy's",
		edits: []edit{{"rotation/internal/protocol/adopt.go", "first.Longest = a.Longest", "first.Timing.MaxTokenTTL = a.Longest"}},
		tests: tests{decisions, "TestRotateAtStays"}, want: "TestRotateAtStays",
	},
	{
		name:  "imported tokens live for less than the policy says",
		edits: []edit{{"rotation/internal/protocol/adopt.go", "if a.Longest > policy.MaxTokenTTL {", "if true {"}},
		tests: tests{decisions, "TestAdoptedTokensLiveAsPolicySays"}, want: "TestAdoptedTokensLiveAsPolicySays",
	},
	{
		name:  "an instance without the store is trusted for a year",
		edits: []edit{{"rotation/internal/protocol/signing.go", "return min(r.TokenTTL(), mostCutOff)", "return r.TokenTTL()"}},
		tests: tests{decisions, "TestLongTokensEndWithoutStore"}, want: "TestLongTokensEndWithoutStore",
	},
	{
		name:  "the date of a rotation is that of one key",
		edits: []edit{{"rotation/internal/protocol/adopt.go", "first.SignUntil, first.Timing.Every = at, max(policy.Every, at.Sub(b.Now))\n", "\n"}},
		tests: tests{simulator, "TestTimelineDate$"}, want: "TestTimelineDate",
	},
	{
		name:  "a rotation may be at once",
		edits: []edit{{"rotation/internal/protocol/adopt.go", "at.Before(soonest) {", "false {"}},
		tests: tests{decisions, "TestAdoptIsRefused"}, want: "TestAdoptIsRefused",
	},
	{
		name:  "a revoked key is imported",
		edits: []edit{{"rotation/internal/protocol/adopt.go", "a.KID); revoked {", "a.KID); revoked && false {"}},
		tests: tests{decisions, "TestAdoptIsRefused"}, want: "TestAdoptIsRefused",
	},
	{
		name:  "a ring is made beside a ring",
		edits: []edit{{"rotation/internal/protocol/create.go", "case !b.Copy.Plan.Dead && !b.Copy.vacant():", "case false:"}},
		tests: tests{simulator, "TestTimelineAdopt$"}, want: "TestTimelineAdopt",
	},
	{
		name:  "no instance is asked which algorithms it verifies",
		edits: []edit{{"rotation/rotator.go", "if err == nil && p != nil && p.Op != ring.OpRevoke && !o.force {", "if false {"}},
		tests: tests{here, "TestAlgorithmIsVerifiedEverywhere"}, want: "TestAlgorithmIsVerifiedEverywhere",
	},
	{
		name:  "a backup re-dates what the store has",
		edits: []edit{{"rotation/internal/protocol/backup.go", "if placesInOrder(id.Kind) && in.Stored.Find(id.KID) != nil {", "if false {"}},
		tests: tests{simulator, "TestTimelineRestoreAbandoned$"}, want: "TestTimelineRestoreAbandoned",
	},
	{
		name:  "a restore keeps the promotions of a lost key",
		edits: []edit{{"rotation/internal/protocol/backup.go", "in.Good, in.Learned = time.Time{}, ring.Facts{}", "in.Good, in.Learned = in.Now, ring.Facts{}"}},
		tests: tests{decisions, "TestRestoreOfLostKey"}, want: "TestRestoreOfLostKey",
	},
	{
		name:  "a restore of an old backup brings back its keys",
		edits: []edit{{"rotation/internal/protocol/backup.go", "endsOnly := !in.Older &&", "endsOnly := false &&"}},
		tests: tests{decisions, "TestRestoreOfOldBackup"}, want: "TestRestoreOfOldBackup",
	},
	{
		name:  "a restore collects what signs in the store",
		edits: []edit{{"rotation/internal/protocol/backup.go", "\t\tif superseded {", "\t\tif superseded && false {"}},
		tests: tests{decisions, "TestRestoreIntoRolledBackStore"}, want: "TestRestoreIntoRolledBackStore",
	},
	{
		name:  "a restore seals under the KEK of the backup",
		edits: []edit{{"rotation/internal/held/restore.go", "isKey && tk != nil && tk.KEK != under {", "false && isKey && tk != nil {"}},
		tests: tests{"./rotation/rediskeys", "TestNemesisRestoreAfterKEKChange"}, want: "TestNemesisRestoreAfterKEKChange",
	},
	{
		name:  "a restore takes a half of a ring",
		edits: []edit{{"rotation/internal/held/restore.go", "if err != nil {\n\t\treturn nil, &ring.Error{Text: \"the ring of the backup\", Err: err}\n\t}", "_ = err"}},
		tests: tests{"./cmd/keyturn", "TestRestoreNeedsKEK"}, want: "TestRestoreNeedsKEK",
	},
	{
		name:  "a restore asks no instance for the KEK",
		edits: []edit{{"rotation/restore.go", "return d.Change, r.allHold(ctx, tenant, b.under)", "return d.Change, nil"}},
		tests: tests{"./rotation/rediskeys", "TestNemesisRestoreAfterKEKChange"}, want: "TestNemesisRestoreAfterKEKChange",
	},
	{
		name:  "a truncated backup is a smaller one",
		edits: []edit{{"rotation/backup/reader.go", "return r.damaged(\"it is truncated: its end is missing\")", "return io.EOF"}},
		tests: tests{"./rotation/backup", "TestDamagedFileIsRefused"}, want: "TestDamagedFileIsRefused",
	},
	{
		name:  "a shred ends nothing that is minted after it",
		edits: []edit{{"rotation/ring/facts.go", "return r.Life < f.Dead || f.Collected(r)", "return r.Life < f.Dead && !r.Created.After(f.DeadAt) || f.Collected(r)"}},
		tests: tests{simulator, "TestTimelineShredSplit$"}, want: "I7",
	},
	{
		name:  "a holder brings a destroyed ring back",
		edits: []edit{{"rotation/ring/facts.go", "return r.Life < f.Dead || f.Collected(r)", "return r.Life < f.Dead && false || f.Collected(r)"}},
		tests: tests{simulator, "TestTimelineShredAgain$"}, want: "TestTimelineShredAgain",
	},
	{
		name:  "a destruction that is lost is not restored",
		edits: []edit{{"rotation/internal/protocol/propose.go", "if !h.DeadAt.IsZero() && (h.Dead > s.Dead || !h.DeadAt.Equal(s.DeadAt)) {", "if false {"}},
		tests: tests{simulator, "TestTimelineShredDump$"}, want: "TestTimelineShredDump",
	},
	{
		name:  "a record is no proof that the lives before it have ended",
		edits: []edit{{"rotation/internal/protocol/copy.go", "\t\tc.Facts.Kill(r.Life, time.Time{})\n", "\t\t_ = r\n"}},
		tests: tests{decisions, "TestShredWins"}, want: "TestShredWins",
	},
	{
		name:  "what one life has collected ends the next",
		edits: []edit{{"rotation/ring/facts.go", "f.Dead, f.DeadAt, f.CollectedUntil = lives, at, time.Time{}", "f.Dead, f.DeadAt = lives, at"}},
		tests: tests{"./rotation/ring", "TestLives|TestJoin"}, want: "TestLives",
	},
	{
		name:  "a holder that was away for a year restores keys",
		edits: []edit{{"rotation/internal/protocol/merge.go", "if m.outOfTouch() {", "if false {"}},
		tests: tests{simulator, "TestTimelineShredYearAway"}, want: "TestTimelineShredYearAway",
	},
	{
		name:  "a shred leaves tenant keys",
		edits: []edit{{"rotation/internal/held/change.go", "keep := field == seal.FieldHead", "keep := strings.HasPrefix(field, seal.PrefixKey) || field == seal.FieldHead"}},
		tests: tests{here, "TestDestroy$"}, want: "TestDestroy",
	},
	{
		name:  "what came back of a destroyed ring stays in the store",
		edits: []edit{{"rotation/internal/protocol/schedule.go", "(b.Copy.Plan.Dead || len(b.Copy.Accepts) > 0)", "len(b.Copy.Accepts) > 0"}},
		tests: tests{simulator, "TestTimelineShredDump$"}, want: "TestTimelineShredDump",
	},
	{
		name:  "a destroyed name is free",
		edits: []edit{{"rotation/internal/protocol/create.go", "case b.Copy.Plan.Dead && !again:", "case false:"}},
		tests: tests{decisions, "TestDestroyedTakesNoChange"}, want: "TestDestroyedTakesNoChange",
	},
	{
		name:  "a key of an ended life is unavailable",
		edits: []edit{{"rotation/lookup.go", "case c.Buried(id.KID):", "case false:"}},
		tests: tests{simulator, "TestTimelineShred$"}, want: "TestTimelineShred",
	},
	{
		name:  "a garbled field keeps a shred from being acknowledged",
		edits: []edit{{"rotation/internal/protocol/acks.go", " || e.Op == ring.OpDestroy) && c.has(e)", ") && c.has(e)"}},
		tests: tests{decisions, "TestShredIsApplied"}, want: "TestShredIsApplied",
	},
	{
		name:  "an added tenant gets a ring at once",
		edits: []edit{{"rotation/run.go", "protocol.Age(now, added) < r.stillFor()", "false"}},
		tests: tests{simulator, "TestTimelineAdd$"}, want: "I10",
	},
	{
		name:  "a ring that the clock has changed counts as calm",
		edits: []edit{{"rotation/internal/synced/sums.go", "case t.at <= keystore.UnixNano(now):", "case t.at < 0:"}},
		tests: tests{syncing, "TestOutlookTurns$"}, want: "TestOutlookTurns",
	},
	{
		name:  "a ring that is looked at again stays as it was counted",
		edits: []edit{{"rotation/internal/synced/sums.go", "o.calm -= len(rings) - (len(old.Odd) - len(o.Odd))", "o.calm -= len(rings)"}},
		tests: tests{syncing, "TestOutlookTurns$"}, want: "TestOutlookTurns",
	},
	{
		name:  "one ring that changes has all of its bucket looked at",
		edits: []edit{{"rotation/internal/synced/sums.go", "max(64, n/16)", "0"}},
		tests: tests{syncing, "TestOutlookTurns$"}, want: "TestOutlookTurns",
	},
	{
		name:  "a lookup takes a ring that can be opened in part",
		edits: []edit{{"rotation/internal/synced/later.go", "failed != nil || protocol.CheckClock", "failed == new(ring.UnreadableError) || protocol.CheckClock"}},
		tests: tests{syncing, "TestOpenedLaterIsTheSame$"}, want: "TestOpenedLaterIsTheSame",
	},
	{
		name:  "a revocation that only the log has waits for the loop",
		edits: []edit{{"rotation/internal/synced/later.go", "!r.news.ends.Equal(ring.Facts{})", "r.news.ends.Equal(ring.Facts{})"}},
		tests: tests{syncing, "TestRevocationInTheLogOpensARing$"}, want: "TestRevocationInTheLogOpensARing",
	},
	{
		name:  "an instance is in sync before it has opened all rings",
		edits: []edit{{"rotation/internal/synced/later.go", "SyncState{Complete: o.asked.sent, Recovering: true}", "SyncState{Complete: o.asked.sent, Good: o.asked.sent}"}},
		tests: tests{syncing, "TestLookupOpensARing$"}, want: "TestLookupOpensARing",
	},
	{
		name:  "the policies of rings that were opened later do not count",
		edits: []edit{{"rotation/internal/synced/later.go", "b.endsStale, b.sums.stale = true, true", "b.endsStale = true"}},
		tests: tests{syncing, "TestOpenedLaterIsTheSame$"}, want: "TestOpenedLaterIsTheSame",
	},
	{
		name:  "the status of a ring is read before it is opened",
		edits: []edit{{"rotation/internal/synced/ring.go", "return r.opened().syncStatus()", "return r.syncStatus()"}},
		tests: tests{syncing, "TestTrustedRingsSignAtOnce$"}, want: "TestTrustedRingsSignAtOnce",
	},
	{
		name:  "accepted keys in rings that Open has opened wait for the loop",
		edits: []edit{{"rotation/internal/synced/later.go", "\t\tb.tellEnds(status) //", "\t\t//"}},
		tests: tests{syncing, "TestAcceptedKeysWhileOpening$"}, want: "TestAcceptedKeysWhileOpening",
	},
	{
		name:  "a lookup knows nothing of a ring that can be opened in part",
		edits: []edit{{"rotation/internal/synced/later.go", "\tif worthHolding(c) {", "\tif ok && worthHolding(c) {"}},
		tests: tests{syncing, "TestPartsWhileOpening$"}, want: "TestPartsWhileOpening",
	},
	{
		name:  "keys verify of a ring that can be opened in part",
		edits: []edit{{"rotation/internal/synced/later.go", "\t\tr.own.Store(&Status{Err: errOpening})", "\t\t_ = errOpening"}},
		tests: tests{syncing, "TestPartsWhileOpening$"}, want: "TestPartsWhileOpening",
	},
	{
		name:  "a ring that is trusted counts as in sync for the Freshness of others",
		edits: []edit{{"rotation/internal/synced/later.go", "(!has || p.Freshness >= k.Times.Load().Fresh)", "(!has || p.Freshness > 0)"}},
		tests: tests{syncing, "TestTrustedForItsFreshness$"}, want: "TestTrustedForItsFreshness",
	},
	{
		name:  "a keyring that is closed opens all rings first",
		edits: []edit{{"rotation/internal/synced/later.go", "\twg.Wait()\n\tif run.ctx.Err() != nil {\n", "\twg.Wait()\n\trun.k.warnOfWeak()\n\tif run.ctx.Err() != nil {\n"}},
		tests: tests{syncing, "TestCloseWhileOpening$"}, want: "TestCloseWhileOpening",
	},
	{
		name:  "Open keeps every ring that it has read unopened",
		edits: []edit{{"rotation/internal/synced/later.go", "\t\to.full.Store(true)\n", ""}},
		tests: tests{syncing, "TestOpenKeepsFewBytes$"}, want: "TestOpenKeepsFewBytes",
	},
	{
		name:  "Open returns although no ring can be opened",
		edits: []edit{{"rotation/internal/synced/later.go", "return !r.dirty && r.known() })", "return true })"}},
		tests: tests{syncing, "TestNoneCanBeOpened$"}, want: "TestNoneCanBeOpened",
	},
	{
		name:  "a ring that has grown since it was weighed is read whole",
		edits: []edit{{"rotation/rediskeys/plain.go", "\t}, rings...)", "\t}, k.ack)"}},
		tests: tests{"./rotation/rediskeys", "TestRingThatChangesWhileManyAreRead$"}, want: "TestRingThatChangesWhileManyAreRead",
	},
	{
		name:  "a ring of many fields is weighed by a few of them",
		edits: []edit{{"rotation/rediskeys/plain.go", "addedUp, smallRing = 2048, 16384", "addedUp, smallRing = 5, 16384"}},
		tests: tests{"./rotation/rediskeys", "TestManyRingsAreReadAsEach$"}, want: "TestManyRingsAreReadAsEach",
	},
	{
		name:  "a change that the store loses at once is forgotten",
		edits: []edit{{"rotation/internal/synced/loop.go", "if r.digest != l.k.hash(w.Base) {", "if r != nil {"}},
		tests: tests{"./rotation", "TestChangeThatTheStoreLosesAtOnce$"}, want: "TestChangeThatTheStoreLosesAtOnce",
	},
	{
		name:  "a keyring of all tenants forgets a new ring that the store loses at once",
		edits: []edit{{"rotation/internal/synced/loop.go", "case l.k.HoldsAll() && w.Base == \"\":", "case l.k.HoldsAll() && w.Base == \"x\":"}},
		tests: tests{"./rotation", "TestChangeThatTheStoreLosesAtOnce$"}, want: "TestChangeThatTheStoreLosesAtOnce",
	},
	{
		name:  "a new ring is destroyed by what the log told of another one before",
		edits: []edit{{"rotation/internal/synced/loop.go", "r.news, r.made = nil, w.Made", "r.made = w.Made"}},
		tests: tests{"./rotation", "TestNewRingOfARemovedName$"}, want: "TestNewRingOfARemovedName",
	},
	{
		name:  "a new ring is destroyed by what the log tells of another one before",
		edits: []edit{{"rotation/internal/synced/entries.go", " || e.Nonce == r.made)", ")"}},
		tests: tests{"./rotation", "TestNewRingOfARemovedName$"}, want: "TestNewRingOfARemovedName",
	},
	{
		name:  "a server of another version is trusted to weigh rings",
		edits: []edit{{"rotation/rediskeys/plain.go", "case !weighsWell(version):", "case version == \"\" && !weighsWell(version):"}},
		tests: tests{"./rotation/rediskeys", "TestManyRingsOfAnotherServer$"}, want: "TestManyRingsOfAnotherServer",
	},
	{
		name:  "a ring that is opened later has no digest",
		edits: []edit{{"rotation/internal/synced/later.go", "u.digest = k.hash(u.of.later.Digest(u.fields))", "u.digest = 0"}},
		tests: tests{"./rotation", "TestDigestsOfManyAreRight$"}, want: "TestDigestsOfManyAreRight",
	},
	{
		name:  "a ring beyond those that are opened later has no digest",
		edits: []edit{{"rotation/internal/synced/later.go", "s.Digest = o.later.Digest(s.Fields)", "s.Digest = \"\""}},
		tests: tests{syncing, "TestOpenKeepsFewBytes$"}, want: "TestOpenKeepsFewBytes",
	},
	{
		name:  "a user who may not watch keys tries it each time",
		edits: []edit{{"rotation/rediskeys/plain.go", "s.noPlain.Load() || forbidsPlain(err)", "s.noPlain.Load()"}},
		tests: tests{"./rotation/rediskeys", "TestManyRingsWithoutTheRights$"}, want: "TestManyRingsWithoutTheRights",
	},
	{
		name:  "an added ring is certain at once",
		edits: []edit{{"rotation/internal/synced/tenants.go", "\town.Certain = from\n", ""}},
		tests: tests{simulator, "TestTimelineAddEdited$"}, want: "TestTimelineAddEdited",
	},
	{
		name:  "a removed tenant's keys come back with a read",
		edits: []edit{{"rotation/internal/synced/state.go", "\tif r.removed.Load() {\n\t\tr.copy().WithdrawAll()\n\t}\n", ""}},
		tests: tests{syncing, "TestRemovedDuringASync$"}, want: "TestRemovedDuringASync",
	},
	{
		name:  "an accepted key does not end without the store",
		edits: []edit{{"rotation/internal/protocol/accept.go", "end := complete.Add(acceptedFor(c.timing()))", "end := complete.Add(1e6 * acceptedFor(c.timing()))"}},
		tests: tests{simulator, "TestTimelineDisown$"}, want: "I3",
	},
	{
		name:  "an accepted key is not put back",
		edits: []edit{{"rotation/internal/protocol/propose.go", "\tm.proposeAccepts(healed, &p)\n", ""}},
		tests: tests{simulator, "TestTimelineExtend$"}, want: "I7",
	},
	{
		name:  "of two dates the earlier counts",
		edits: []edit{{"rotation/ring/facts.go", "func (k FactKind) earliest() bool { return k == FactRevoked", "func (k FactKind) earliest() bool { return k == FactAccepted || k == FactRevoked"}},
		tests: tests{simulator, "TestTimelineExtend$"}, want: "TestTimelineExtend",
	},
	{
		name:  "an accepted key that has ended is put back",
		edits: []edit{{"rotation/internal/protocol/accept.go", "return !m.ClockOff && !now.Before(facts.Accepted(a.AcceptRecord).Until)", "return false && now.Before(facts.Accepted(a.AcceptRecord).Until)"}},
		tests: tests{decisions, "TestEndedAcceptIsNotPutBack"}, want: "TestEndedAcceptIsNotPutBack",
	},
	{
		name:  "an accepted key is collected at its date",
		edits: []edit{{"rotation/internal/protocol/accept.go", "before := b.Now.Add(-p.Leeway - p.HeardWithin() - p.ClockSkew)", "before := b.Now.Add(p.Leeway - p.Leeway)"}},
		tests: tests{decisions, "TestAcceptedKeyEnds"}, want: "TestAcceptedKeyEnds",
	},
	{
		name:  "an accepted key that has ended is kept",
		edits: []edit{{"rotation/internal/protocol/collect.go", "p.RemoveAccepts = b.endedAccepts()", "p.RemoveAccepts = nil"}},
		tests: tests{simulator, "TestTimelineEnded$"}, want: "TestTimelineEnded",
	},
	{
		name:  "the revocation of an accepted key is for lookups by kid alone",
		edits: []edit{{"rotation/internal/held/accept.go", "if c.Revoked(a.KID) {", "if false {"}, {"rotation/internal/held/accept.go", " && !c.Revoked(a.KID) && !c.Ended", " && !c.Ended"}},
		tests: tests{simulator, "TestTimelineFive$"}, want: "TestTimelineFive",
	},
	{
		name:  "the date of an accepted key is its record's alone",
		edits: []edit{{"rotation/ring/accept.go", "a.Until = later(a.Until, d.at)", "_ = d.at"}},
		tests: tests{simulator, "TestTimelineExtend$"}, want: "TestTimelineExtend",
	},
	{
		name:  "a revoked key is accepted again",
		edits: []edit{{"rotation/internal/protocol/accept.go", "\tcase revoked:\n", "\tcase revoked && false:\n"}},
		tests: tests{here, "TestRevokedAccept"}, want: "TestRevokedAccept",
	},
	{
		name:  "a key without kid is another one each time",
		edits: []edit{{"rotation/internal/held/accept.go", "f.NoKID && i >= 0 {", "f.NoKID && i >= 0 && false {"}},
		tests: tests{here, "TestAcceptWithoutKID"}, want: "TestAcceptWithoutKID",
	},
	{
		name:  "tokens without kid are tried with some of the keys",
		edits: []edit{{"rotation/internal/held/accept.go", "return cmp.Or(c.until(b).Compare(c.until(a)), strings.Compare(a.KID, b.KID))", "return cmp.Or(c.until(a).Compare(c.until(b)), strings.Compare(a.KID, b.KID))"}},
		tests: tests{simulator, "TestTimelineFive$"}, want: "TestTimelineFive",
	},
	{
		name:  "a date of an accepted key counts for every key of its kid",
		edits: []edit{{"rotation/ring/accept.go", "ok && !created.Before(r.Created) && created.Before(r.Until)", "ok && !created.IsZero()"}},
		tests: tests{decisions, "TestEndedAcceptStaysEnded"}, want: "TestEndedAcceptStaysEnded",
	},
	{
		name:  "a key that has just been opened serves tokens without kid although it was revoked",
		edits: []edit{{"rotation/internal/held/accept.go", " && !c.Revoked(a.KID) && !c.Ended", " && !c.Ended"}},
		tests: tests{"./rotation/internal/held", "TestWithoutKIDBeforeEnds"}, want: "TestWithoutKIDBeforeEnds",
	},
	{
		name:  "accepted keys alone are a ring",
		edits: []edit{{"rotation/internal/protocol/copy.go", "(c.noData() || c.unborn() ||", "(c.noData() ||"}},
		tests: tests{decisions, "TestAcceptedKeysAloneAreNoRing"}, want: "TestAcceptedKeysAloneAreNoRing",
	},
	{
		name:  "a rotator makes a ring beside accepted keys",
		edits: []edit{{"rotation/internal/protocol/create.go", "if len(b.Copy.Accepts) > 0 {", "if false {"}},
		tests: tests{decisions, "TestAcceptedKeysAloneAreNoRing"}, want: "TestAcceptedKeysAloneAreNoRing",
	},
	{
		name:  "of two keys with one kid the last heard of counts",
		edits: []edit{{"rotation/internal/protocol/accept.go", "case facts.Ignored(records[i].Record), precedes(r.Created, r.Sum, records[i].Created, records[i].Sum):", "case facts.Ignored(records[i].Record), false:"}},
		tests: tests{simulator, "TestTimelineKid$"}, want: "TestTimelineKid",
	},
	{
		name:  "records are told apart by their kid",
		edits: []edit{{"rotation/internal/held/ring.go", "if known == nil || !bytes.Equal(known.blob, blob) {", "if known == nil {"}},
		tests: tests{simulator, "TestTimelineKid$"}, want: "TestTimelineKid",
	},
	{
		name:  "a revoked successor leaves a signer past its end",
		edits: []edit{{"rotation/internal/protocol/revoke.go", "if err := b.keepSigner(p, kid); err != nil {", "if err := b.keepSigner(new(Proposal), kid); err != nil {"}},
		tests: tests{decisions, "TestRevokedSuccessorAfterRotateAt"}, want: "TestRevokedSuccessorAfterRotateAt",
	},
	{
		name:  "polls every 15 s",
		edits: []edit{{"rotation/internal/synced/times.go", "maxPoll = 3 * time.Second", "maxPoll = 15 * time.Second"}},
		tests: tests{here, "TestColdStartTakesTwoPolls$"}, want: "TestColdStartTakesTwoPolls",
	},
	{
		name:  "an acknowledgement of another run vouches",
		edits: []edit{{"rotation/internal/protocol/acks.go", "a.Run != \"\" && a.Run == f.Run && (", "a.Run != \"\" && ("}},
		tests: tests{simulator, "TestTimelinePower$"}, want: "TestTimelinePower",
	},
	{
		name:  "a young acknowledgement of another run vouches",
		edits: []edit{{"rotation/internal/protocol/acks.go", "a.Instance != f.Self && !other && ", "a.Instance != f.Self && "}, {"rotation/internal/protocol/acks.go", "\tother := ", "\t_ = "}},
		tests: tests{decisions, "TestVouched$"}, want: "TestVouched",
	},
	{
		name:  "a place that is gone vouches",
		edits: []edit{{"rotation/internal/protocol/acks.go", " && (a.Nonce == f.Place || slices.Contains(f.Late, a.Nonce))", ""}},
		tests: tests{decisions, "TestVouchedByRun$"}, want: "TestVouchedByRun",
	},
	{
		name:  "being in sync outlasts a run",
		edits: []edit{{"rotation/internal/synced/sync.go", "b.run, b.goodSince = reply.Run, time.Time{}", "b.run = reply.Run"}},
		tests: tests{simulator, "TestTimelineUnheard$"}, want: "TestTimelineUnheard",
	},
	{
		name:  "a run is proved at once",
		edits: []edit{{"rotation/internal/synced/sync.go", " && reply.Now.Sub(b.goodSince) >= 2*run.asked.MaxPollGap()", ""}},
		tests: tests{simulator, "TestTimelineUnheard$"}, want: "TestTimelineUnheard",
	},
	{
		name:  "a vouched copy is certain",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "if known && !r.Trusted {", "if false {"}},
		tests: tests{simulator, "TestTimelineRun$"}, want: "TestTimelineRun",
	},
	{
		name:  "an instance that has ended is live",
		edits: []edit{{"rotation/internal/held/roster.go", "\t\t\tif r.Parted() {", "\t\t\tif false {"}},
		tests: tests{here, "TestColdStartInTheSameRun$"}, want: "TestColdStartInTheSameRun",
	},
	{
		name:  "an instance that ends leaves nothing",
		edits: []edit{{"rotation/internal/synced/rings.go", "\tk.part(ctx)\n", ""}},
		tests: tests{here, "TestColdStartInTheSameRun$"}, want: "TestColdStartInTheSameRun",
	},
	{
		name:  "a short restart is no pause",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "r.Vouched || s.paused(r, l)", "r.Vouched"}},
		tests: tests{simulator, "TestTimelinePause$"}, want: "TestTimelinePause",
	},
	{
		name:  "a long restart is a pause",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "max(Age(r.Sent, s.Restored), r.Now.Sub(s.Restored)) <= l.Fresh", "l.Fresh > 0"}},
		tests: tests{simulator, "TestTimelinePauseReplayed$"}, want: "TestTimelinePauseReplayed",
	},
	{
		name:  "a pause goes by this clock alone",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "max(Age(r.Sent, s.Restored), r.Now.Sub(s.Restored))", "Age(r.Sent, s.Restored)"}},
		tests: tests{decisions, "TestRestartIsAPause$"}, want: "TestRestartIsAPause",
	},
	{
		name:  "a pause goes by the store's clock alone",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "max(Age(r.Sent, s.Restored), r.Now.Sub(s.Restored))", "r.Now.Sub(s.Restored)"}},
		tests: tests{decisions, "TestRestartIsAPause$"}, want: "TestRestartIsAPause",
	},
	{
		name:  "a pause needs no place",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "s.Knew.Equal(s.Restored) && !r.Resync &&", "s.Knew.Equal(s.Restored) &&"}},
		tests: tests{simulator, "TestTimelinePauseLost$"}, want: "TestTimelinePauseLost",
	},
	{
		name:  "a restart while recovering is a pause",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "!s.Restored.IsZero() && s.Knew.Equal(s.Restored) && !r.Resync", "!s.Restored.IsZero() && !r.Resync"}},
		tests: tests{decisions, "TestRestartIsAPause$"}, want: "TestRestartIsAPause",
	},
	{
		name:  "what a pause proves is certain",
		edits: []edit{{"rotation/internal/protocol/syncstate.go", "if known && !r.Trusted {", "if r.Vouched && !r.Trusted {"}},
		tests: tests{simulator, "TestTimelinePauseCold$"}, want: "TestTimelinePauseCold",
	},
	{
		name:  "a snapshot of a ring that is not whole has a place",
		edits: []edit{{"rotation/internal/synced/sync.go", "return r.dirty || r.news != nil", "return r.news != nil"}},
		tests: tests{here, "TestNoPauseForARingThatIsNotWhole$"}, want: "TestNoPauseForARingThatIsNotWhole",
	},
	{
		name:  "a snapshot has a place beyond news that wait",
		edits: []edit{{"rotation/internal/synced/sync.go", "return r.dirty || r.news != nil", "return r.dirty"}},
		tests: tests{syncing, "TestWhole$"}, want: "TestWhole",
	},
	{
		name:  "a place outlasts a wrong clock",
		edits: []edit{{"rotation/internal/synced/sync.go", "if b.state.First() {\n\t\t\tb.place = store.Place{}", "if false {\n\t\t\tb.place = store.Place{}"}},
		tests: tests{here, "TestNoPauseAfterAWrongClock$"}, want: "TestNoPauseAfterAWrongClock",
	},
	{
		name:  "a pause does not ask for the tenants",
		edits: []edit{{"rotation/internal/synced/sync.go", "(replies[i].Resync || b.state.First())", "replies[i].Resync"}},
		tests: tests{here, "TestPauseListsTenants$"}, want: "TestPauseListsTenants",
	},
	{
		name:  "a snapshot is written once in Freshness",
		edits: []edit{{"rotation/internal/synced/snapshot.go", "max(fresh/2, ", "max(fresh, "}},
		tests: tests{here, "TestPauseAfterAKill$"}, want: "TestPauseAfterAKill",
	},
	{
		name:  "a large snapshot is written as often",
		edits: []edit{{"rotation/internal/synced/snapshot.go", ", time.Duration(s.bytes)*time.Second/saveRate)", ")"}},
		tests: tests{syncing, "TestHowOftenASnapshotIsSaved$"}, want: "TestHowOftenASnapshotIsSaved",
	},
	{
		name:  "a snapshot after its clock was set back is used",
		edits: []edit{{"rotation/internal/synced/snapshot.go", "newest := s.Newest();", "newest := s.At;"}},
		tests: tests{here, "TestSnapshotOfAClockThatWasSetBack$"}, want: "TestSnapshotOfAClockThatWasSetBack",
	},
	{
		name:  "an acknowledgement from the past",
		edits: []edit{{"rotation/internal/synced/entries.go", "|| b.place == (store.Place{}) || b.state.First() {", "|| b.place == (store.Place{}) {"}},
		tests: tests{here, "TestNoAcknowledgementFromASnapshot$"}, want: "TestNoAcknowledgementFromASnapshot",
	},
	{
		name:  "a destroyed ring keeps what a life has collected under the old KEK",
		edits: []edit{{"rotation/internal/held/change.go", "stored && facts.CollectedUntil.IsZero()", "stored && false"}},
		tests: tests{here, "TestRekeyOfADestroyedRing$"}, want: "TestRekeyOfADestroyedRing",
	},
	{
		name:  "a lookup of a packed ring gets a key of its own",
		edits: []edit{{"rotation/internal/synced/state.go", "\treturn r.Live()\n", "\treturn r.read(n)\n"}},
		tests: tests{syncing, "TestLookupDuringASync$"}, want: "TestLookupDuringASync",
	},
	{
		name:  "a sync forgets the keys of a lookup that came meanwhile",
		edits: []edit{{"rotation/internal/synced/state.go", "c, old = c.Sharing(n.whole), n.whole", "_ = old"}},
		tests: tests{syncing, "TestLookupDuringASync$"}, want: "TestLookupDuringASync",
	},
	{
		name:  "an unknown kid unpacks a ring",
		edits: []edit{{"rotation/internal/synced/state.go", " || !c.Names(kid)", " || c == nil"}},
		tests: tests{syncing, "TestUnknownKIDsCostNoMemory$"}, want: "TestUnknownKIDsCostNoMemory",
	},
	{
		name:  "a key in use is packed away",
		edits: []edit{{"rotation/internal/held/pack.go", "return r.key.made.Load() != nil", "return false"}},
		tests: tests{"./rotation/internal/held", "TestNotPacked$"}, want: "TestNotPacked",
	},
	{
		name:  "rings stand alike although they are cut off for too long",
		edits: []edit{{"rotation/internal/synced/sums.go", "(age <= o.signFor || age > o.mostSignFor) && known", "known && age >= 0"}},
		tests: tests{here, "TestStatusLooksAtFew$"}, want: "TestStatusLooksAtFew",
	},
	{
		name:  "what an instance could not tell is not looked at again",
		edits: []edit{{"rotation/run.go", "work != nil || unsure)", "work != nil || unsure && work != nil)"}},
		tests: tests{here, "TestDueWhileOutOfReach$"}, want: "TestDueWhileOutOfReach",
	},
	{
		name:  "a clock that was set back leaves the agenda ahead",
		edits: []edit{{"rotation/internal/synced/agenda.go", "(back || a.heap[0].at <= n)", "a.heap[0].at <= n"}},
		tests: tests{syncing, "TestAgendaWhenTheClockIsSetBack$"}, want: "TestAgendaWhenTheClockIsSetBack",
	},
	{
		name:  "revocations: a cold start is ready at once",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "s.Doubt, s.Until = r.Sent, !r.Trusted && !r.Vouched, r.Sent.Add(recover)", "s.Doubt, s.Until = r.Sent, false, r.Sent.Add(recover)"}},
		tests: tests{revoking, "TestTimelineWipe$"}, want: "TestTimelineWipe",
	},
	{
		name:  "revocations: a dispute extends no wait",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "(r.Merging || r.Disputed &&", "(r.Merging || false &&"}},
		tests: tests{revRules, "TestState$"}, want: "TestState",
	},
	{
		name:  "revocations: a repair extends no wait",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "(r.Merging || r.Disputed &&", "(r.Disputed &&"}},
		tests: tests{revRules, "TestState$"}, want: "TestState",
	},
	{
		name:  "revocations: another run of the store is no doubt",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "case r.Resync, r.Run != s.Run && r.Run != \"\" && s.Run != \"\":", "case r.Resync:"}},
		tests: tests{revRules, "TestState$"}, want: "TestState",
	},
	{
		name:  "revocations: an acknowledgement of any content vouches",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "if a.Good.IsZero() || Compare(a, v.Held, v.Gone, v.Past) != Same {", "if a.Good.IsZero() {"}},
		tests: tests{revRules, "TestVouches$"}, want: "TestVouches",
	},
	{
		name:  "revocations: an acknowledgement of another run vouches",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "if a.Run == \"\" || a.Run != v.Run {", "if false {"}},
		tests: tests{revRules, "TestVouches$"}, want: "TestVouches",
	},
	{
		name:  "revocations: nothing is put back",
		edits: []edit{{"verifier/revocations/load.go", "if print != l.prints[g] && !l.cfg.Transient {", "if print != l.prints[g] && false {"}},
		tests: tests{revoking, "TestHistories"}, want: "forgets",
	},
	{
		name:  "revocations: no digest is compared",
		edits: []edit{{"verifier/revocations/sync.go", "if l.prints[g] == 0 && !b.keyless[g] && !b.recheck {", "if true {"}},
		tests: tests{revoking, "TestTimelineReplay$"}, want: "TestTimelineReplay",
	},
	{
		name:  "revocations: what a failover lost just after it was written is not counted",
		edits: []edit{{"verifier/revocations/hold.go", "if !read[b] || !early.at.Before(sent) {", "if !read[b] || !early.at.After(sent) || true {"}},
		tests: tests{revoking, "TestTimelineShare$"}, want: "TestTimelineShare",
	},
	{
		name:  "revocations: groups under an unknown digest key are not read again",
		edits: []edit{{"verifier/revocations/load.go", "maps.Copy(b.unread, b.keyless)", "_ = b.keyless"}},
		tests: tests{revoking, "TestTimelineLateKey$"}, want: "TestTimelineLateKey",
	},
	{
		name:  "revocations: a writer makes a digest key at once",
		edits: []edit{{"verifier/revocations/keys.go", "if len(acks) > 0 {", "if len(acks) > 0 && false {"}},
		tests: tests{revoking, "TestTimelineKeysRemoved$"}, want: "TestTimelineKeysRemoved",
	},
	{
		name:  "revocations: a digest key that was lost is not put back",
		edits: []edit{{"verifier/revocations/keys.go", "if len(lost)+len(junk) == 0 || l.cfg.Transient {", "if true {"}},
		tests: tests{revoking, "TestTimelineWipe$"}, want: "TestTimelineWipe",
	},
	{
		name:  "revocations: an instance with another form of KEK begins",
		edits: []edit{{"verifier/revocations/keys.go", "if len(l.keys.set) == 0 {\n\t\tfailed =", "if false {\n\t\tfailed ="}},
		tests: tests{revoking, "TestInstanceWithAnotherForm$"}, want: "TestInstanceWithAnotherForm",
	},
	{
		name:  "revocations: a digest key of another form stops a holder",
		edits: []edit{{"verifier/revocations/keys.go", "if len(l.keys.set) == 0 {\n\t\tfailed =", "if true {\n\t\tfailed ="}},
		tests: tests{revoking, "TestJunkThatMayBeAKey$"}, want: "TestJunkThatMayBeAKey",
	},
	{
		name:  "revocations: a digest key of another form is removed",
		edits: []edit{{"verifier/revocations/keys.go", "(big || !codec.MayBeKey(field, value))", "(big || true)"}},
		tests: tests{revoking, "TestJunkThatMayBeAKey$"}, want: "TestJunkThatMayBeAKey",
	},
	{
		name:  "revocations: junk beside digest keys stays",
		edits: []edit{{"verifier/revocations/keys.go", "junk = append(junk, field)", "_ = append(junk, field)"}},
		tests: tests{revoking, "TestJunkBesideKeys$"}, want: "TestJunkBesideKeys",
	},
	{
		name:  "revocations: junk that looks like digest keys fills their group",
		edits: []edit{{"verifier/revocations/keys.go", "big := sizeOf(fields) > maxKeysGroup", "big := false"}},
		tests: tests{revoking, "TestJunkBesideKeys$"}, want: "TestJunkBesideKeys",
	},
	{
		name:  "revocations: another digest key of the same ID counts as the held one",
		edits: []edit{{"verifier/revocations/internal/codec/keys.go", "return ks, held.Same(k)", "return ks, true"}},
		tests: tests{revoking, "TestKeyOfTheSameID$"}, want: "TestKeyOfTheSameID",
	},
	{
		name:  "revocations: an instance that starts keeps a forged digest key",
		edits: []edit{{"verifier/revocations/keys.go", "if !l.keys.bucket.state.Good.IsZero() || l.cfg.Transient {", "if true {"}},
		tests: tests{revoking, "TestKeyOfTheSameID$"}, want: "TestKeyOfTheSameID",
	},
	{
		name:  "revocations: a holder takes a forged digest key",
		edits: []edit{{"verifier/revocations/keys.go", "if !l.keys.bucket.state.Good.IsZero() || l.cfg.Transient {", "if l.cfg.Transient {"}},
		tests: tests{revoking, "TestKeyOfTheSameID$"}, want: "TestKeyOfTheSameID",
	},
	{
		name:  "revocations: a command makes a digest key at once",
		edits: []edit{{"verifier/revocations/keys.go", "for waited := !l.cfg.Transient || l.cfg.TrustFirstRead;", "for waited := true;"}},
		tests: tests{revoking, "TestCommandsAfterFlush$"}, want: "TestCommandsAfterFlush",
	},
	{
		name:  "revocations: an entry of a newer version has any size",
		edits: []edit{{"verifier/revocations/load.go", "keep := !full && len(value) <= maxUnread", "keep := !full"}},
		tests: tests{revoking, "TestUnreadableOfUsualSize$"}, want: "TestUnreadableOfUsualSize",
	},
	{
		name:  "revocations: entries that cannot be opened fill a group",
		edits: []edit{{"verifier/revocations/load.go", "keep := !full && len(value) <= maxUnread", "keep := (!full || true) && len(value) <= maxUnread"}},
		tests: tests{revoking, "TestUnreadableOfUsualSize$"}, want: "TestUnreadableOfUsualSize",
	},
	{
		name:  "revocations: a holder makes no room for what it puts back",
		edits: []edit{{"verifier/revocations/load.go", "if len(lost.garbage) > 0 && !lost.b.state.Good.IsZero() {", "if false {"}},
		tests: tests{revoking, "TestHolderMakesRoom$"}, want: "TestHolderMakesRoom",
	},
	{
		name:  "revocations: a revocation makes no room for itself",
		edits: []edit{{"verifier/revocations/revoke.go", "if sizeOf(s.Fields) <= maxGroup {", "if true {"}},
		tests: tests{revoking, "TestRevocationMakesRoom$"}, want: "TestRevocationMakesRoom",
	},
	{
		name:  "revocations: a put-back that was refused is tried at once",
		edits: []edit{{"verifier/revocations/load.go", "lost.b.refused[lost.group] = true", "lost.b.lost[lost.group] = true"}},
		tests: tests{revoking, "TestRefusedPutBack$"}, want: "TestRefusedPutBack",
	},
	{
		name:  "revocations: a digest key whose put-back was refused stays away",
		edits: []edit{{"verifier/revocations/load.go", "l.keys.unread || l.keys.failed, false", "l.keys.unread, false"}},
		tests: tests{revoking, "TestRefusedPutBack$"}, want: "TestRefusedPutBack",
	},
	{
		name:  "revocations: a put-back that was refused is no alarm",
		edits: []edit{{"verifier/revocations/load.go", "if code == rotation.NotMade && isBroken(err) {", "if false {"}},
		tests: tests{revoking, "TestRefusedPutBack$"}, want: "TestRefusedPutBack",
	},
	{
		name:  "revocations: garbage stays while the clocks differ",
		edits: []edit{{"verifier/revocations/collect.go", "if b.err == nil && !b.state.Good.IsZero() {\n\t\tmaps", "if b.mayEnd() {\n\t\tmaps"}},
		tests: tests{revoking, "TestGarbageGoesWhileClocksDiffer$"}, want: "TestGarbageGoesWhileClocksDiffer",
	},
	{
		name:  "an exhausted log that was read to its end stays",
		edits: []edit{{"rotation/rediskeys/lua/sync.lua", "if proved and id == lastID and instance ~= '' then", "if false then"}},
		tests: tests{"./rotation/rediskeys", "TestMendExhaustedLog$"}, want: "TestMendExhaustedLog",
	},
	{
		name:  "an exhausted log that refuses changes stays",
		edits: []edit{{"rotation/rediskeys/store.go", "s.exhausted[bucket].Store(true)", "s.exhausted[bucket].Store(false)"}},
		tests: tests{"./rotation/rediskeys", "TestMendExhaustedLog$"}, want: "TestMendExhaustedLog",
	},
	{
		name:  "revocations: the log teaches nothing",
		edits: []edit{{"verifier/revocations/sync.go", "for _, e := range logged.Entries {", "for _, e := range logged.Entries[:0] {"}},
		tests: tests{revoking, "TestTimelineLogAlone$"}, want: "TestTimelineLogAlone",
	},
	{
		name:  "revocations: an entry ends with its token",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "exp.Add(Leeway + 2*skew)", "exp"}},
		tests: tests{revoking, "TestTimelineLeeway$"}, want: "TestTimelineLeeway",
	},
	{
		name:  "revocations: entries end by this clock alone",
		edits: []edit{{"verifier/revocations/hold.go", "now.Add(min(l.offset, 0))", "now.Add(0)"}},
		tests: tests{revoking, "TestTimelineClockAhead$"}, want: "TestTimelineClockAhead",
	},
	{
		name:  "revocations: entries end without the store's clock",
		edits: []edit{{"verifier/revocations/hold.go", "if !slices.ContainsFunc(r.replies, func(reply rotation.SyncReply) bool { return reply.Err == nil }) {", "if slices.Contains([]int{1}, 2) {"}, {"verifier/revocations/hold.go", "case now.Unix() < l.earliest():", "case false:"}},
		tests: tests{revoking, "TestClockJump$"}, want: "TestClockJump",
	},
	{
		name:  "revocations: a clock that is set back leaves revocations forgotten",
		edits: []edit{{"verifier/revocations/hold.go", "case now.Unix() < l.earliest():", "case false:"}},
		tests: tests{revoking, "TestClockJump$"}, want: "TestClockJump",
	},
	{
		name:  "revocations: an old acknowledgement vouches for a log that was cut",
		edits: []edit{{"verifier/revocations/sync.go", "sum.recalls && !sum.unlike && !now.Hidden) && !sum.ahead", "sum.recalls)"}},
		tests: tests{revoking, "TestOldAckHidesNothing$"}, want: "TestOldAckHidesNothing",
	},
	{
		name:  "revocations: entries that cannot be read are not mentioned",
		edits: []edit{{"verifier/revocations/load.go", "opened.noKey || opened.newer {", "false {"}},
		tests: tests{revoking, "TestUnreadable$"}, want: "TestUnreadable",
	},
	{
		name:  "revocations: entries that could not be read are mentioned for ever",
		edits: []edit{{"verifier/revocations/sync.go", "if l.prints[g] == 0 && !b.keyless[g] && !b.recheck {", "if l.prints[g] == 0 && !b.recheck {"}},
		tests: tests{revoking, "TestUnreadable$"}, want: "TestUnreadable",
	},
	{
		name:  "revocations: a list without digest keys is no list",
		edits: []edit{{"cmd/keyturn/revocations.go", "return slices.ContainsFunc(names, func(groups []string) bool { return len(groups) > 0 }), err", "_ = names; return false, err"}},
		tests: tests{"./cmd/keyturn", "TestUnreadableRevocationsAreNamed$"}, want: "TestUnreadableRevocationsAreNamed",
	},
	{
		name:  "revocations: verify calls a token good when the list cannot tell",
		edits: []edit{{"cmd/keyturn/verifyrevoked.go", "return revoked, f.err", "err, f.err = f.err, nil; return revoked, nil"}},
		tests: tests{"./cmd/keyturn", "TestVerifyAsksTheListOfAFleet$"}, want: "TestVerifyAsksTheListOfAFleet",
	},
	{
		name:  "revocations: a watch does not see that the revocation is gone",
		edits: []edit{{"verifier/revocations/watch.go", "if ok && !rules.Lacks(stored, r.entry) {", "if ok || !rules.Lacks(stored, r.entry) || true {"}},
		tests: tests{revoking, "TestUndone$"}, want: "TestUndone",
	},
	{
		name:  "revocations: a watch does not see that the digest key is gone",
		edits: []edit{{"verifier/revocations/watch.go", "notAKey(err) || s[1].Fields[field] == nil {", "notAKey(err) && false {"}},
		tests: tests{revoking, "TestUndone$"}, want: "TestUndone",
	},
	{
		name:  "revocations: a watch takes a replaced revocation for a lost one",
		edits: []edit{{"verifier/revocations/watch.go", "err != nil || replaced {", "err != nil || replaced && false {"}},
		tests: tests{revoking, "TestReplacedIsNotUndone$"}, want: "TestReplacedIsNotUndone",
	},
	{
		name:  "revocations: a token that is revoked again is not known",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "if joined.Kind == table.Token {", "if false {"}},
		tests: tests{revRules, "TestKnown$"}, want: "TestKnown",
	},
	{
		name:  "revocations: a list that was full tells without what found no room",
		edits: []edit{{"verifier/revocations/bucket.go", "case l.short.whole != nil:", "case l.table.Len() >= 2*l.cfg.MaxEntries:"}},
		tests: tests{revoking, "TestTimelineNoRoom$"}, want: "TestTimelineNoRoom",
	},
	{
		name:  "revocations: a tenant over its share is unknown until a restart",
		edits: []edit{{"verifier/revocations/room.go", "if rules.HasRoom(l.table.LenOf(tenant), l.cfg.MaxPerTenant) {", "if false && tenant == 0 {"}},
		tests: tests{revoking, "TestTimelineNoRoom$"}, want: "TestTimelineNoRoom",
	},
	{
		name:  "revocations: a tenant over its share is told without what found no room",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "return passed(until) || groups == 0", "return passed(until) || swept > 0"}},
		tests: tests{revoking, "TestTimelineNoRoom$"}, want: "TestTimelineNoRoom",
	},
	{
		name:  "revocations: what found no room counts after its end",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "return passed(until) || groups == 0", "return groups == 0"}},
		tests: tests{revoking, "TestTimelineNoRoom$"}, want: "TestTimelineNoRoom",
	},
	{
		name:  "revocations: a group of a wrong type is left for people",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "return !s.Good.IsZero() && !s.Doubt && !unreadable", "return false"}},
		tests: tests{revoking, "TestGroupOfAWrongType$"}, want: "TestGroupOfAWrongType",
	},
	{
		name:  "revocations: an instance that holds nothing removes a group",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "return !s.Good.IsZero() && !s.Doubt && !unreadable", "return !unreadable"}},
		tests: tests{revoking, "TestGroupOfAWrongType$"}, want: "TestGroupOfAWrongType",
	},
	{
		name:  "revocations: a group that can be read is discarded",
		edits: []edit{{"rotation/rediskeys/lua/discard.lua", "if not flat.err and size <= maxRing then", "if false then"}},
		tests: tests{revoking, "TestRedisBrokenGroup$"}, want: "TestRedisBrokenGroup",
	},
	{
		name:  "revocations: a list takes KEKs that do not open its digest keys",
		edits: []edit{{"verifier/revocations/setkeks.go", "if _, _, err := codec.OpenKey(box, field, value); err != nil {", "if _, _, err := codec.OpenKey(box, field, value); err != nil && false {"}},
		tests: tests{revoking, "TestSetKEKs$"}, want: "TestSetKEKs",
	},
	{
		name:  "revocations: new KEKs open nothing until Redis changes",
		edits: []edit{{"verifier/revocations/setkeks.go", "l.rebox.Store(true)", "l.rebox.Store(false)"}},
		tests: tests{revoking, "TestTimelineKEK$"}, want: "TestTimelineKEK",
	},
	{
		name:  "revocations: a new digest key counts with the next sync",
		edits: []edit{{"verifier/revocations/keys.go", "if !slices.Equal(l.keys.set, l.view.Load().keys) {", "if false {"}},
		tests: tests{revoking, "TestKeyCountsWhenItIsKnown$"}, want: "TestKeyCountsWhenItIsKnown",
	},
	{
		name:  "revocations: who is live goes by the store's clock alone",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "if Live(a.At, storeNow, fresh) || Live(a.At, here, fresh) {", "if Live(a.At, storeNow, fresh) {"}, {"verifier/revocations/internal/rules/acks.go", "return Live(at, v.Now, v.fresh()) || Live(at, v.Here, v.fresh())", "return Live(at, v.Now, v.fresh())"}},
		tests: tests{revoking, "TestStoreClockPushedAhead$"}, want: "TestStoreClockPushedAhead",
	},
	{
		name:  "revocations: a subject is revoked by a store whose clock is right alone",
		edits: []edit{{"verifier/revocations/revoke.go", "const ages = 250", "const ages = 100"}},
		tests: tests{revoking, "TestStoreClockPushedAhead$"}, want: "TestStoreClockPushedAhead",
	},
	{
		name:  "revocations: a forged tenant replaces what the tenant has revoked",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", " && binary.BigEndian.Uint64(tenant.Digest[:8]) == tenant.Tenant &&", " && binary.BigEndian.Uint64(tenant.Digest[:8]) >= 0 &&"}, {"verifier/revocations/hold.go", "if e.Kind == table.Tenant && tenantOf(e.Digest) == e.Tenant { //", "if e.Kind == table.Tenant { //"}},
		tests: tests{revoking, "TestForgedTenantReplacesNothing$"}, want: "TestForgedTenantReplacesNothing",
	},
	{
		name:  "revocations: an entry that has ended comes back",
		edits: []edit{{"verifier/revocations/load.go", "case rules.Ended(e.Entry, time.Unix(l.swept, 0)):", "case false:"}, {"verifier/revocations/hold.go", "\tcase rules.Ended(e, time.Unix(l.swept, 0)):\n\t\treturn\n", "\tcase false:\n"}},
		tests: tests{revoking, "TestTimelineReplay$"}, want: "TestTimelineReplay",
	},
	{
		name:  "revocations: a stale list serves on",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "return !good.IsZero() && (waived || Age(now, good) <= stale)", "return !good.IsZero()"}, {"verifier/revocations/marks.go", "case v.staleAt != math.MaxInt64 && (keystore.UnixNano(now) > v.staleAt || now.Sub(v.synced) > maxStale):", "case v.staleAt == 0 && keystore.UnixNano(now) < 0:"}},
		tests: tests{revoking, "TestTimelineStale$"}, want: "TestTimelineStale",
	},
	{
		name:  "revocations: a revocation of the future",
		edits: []edit{{"verifier/revocations/revoke.go", "To: 2*l.cfg.ClockSkew + time.Second", "To: 876000 * time.Hour"}},
		tests: tests{revoking, "TestFuture$"}, want: "TestFuture",
	},
	{
		name:  "revocations: before is rounded down",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "return t.Unix() + 1", "return t.Unix()"}},
		tests: tests{revRules, "TestSeconds$"}, want: "TestSeconds",
	},
	{
		name:  "revocations: the revocation of a tenant replaces sessions",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "(e.Kind == table.Token || e.Kind == table.Subject)", "e.Kind != table.Tenant"}},
		tests: tests{revoking, "TestTenantReplaces$"}, want: "TestTenantReplaces",
	},
	{
		name:  "revocations: a join forgets the later end",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "max(a.Before, b.Before), max(a.End, b.End)", "max(a.Before, b.Before), b.End"}},
		tests: tests{revRules, "TestJoin$"}, want: "TestJoin",
	},
	{
		name:  "revocations: over twice the share entries are dropped unseen",
		edits: []edit{{"verifier/revocations/room.go", "l.over[tenant] = true", "_ = tenant"}},
		tests: tests{revoking, "TestTimelineShare$"}, want: "TestTimelineShare",
	},
	{
		name:  "revocations: the share is not asked",
		edits: []edit{{"verifier/revocations/revoke.go", "case n >= perTenant:", "case false:"}},
		tests: tests{revoking, "TestTimelineShare$"}, want: "TestTimelineShare",
	},
	{
		name:  "revocations: one that is silent is not missing",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "\tfor _, name := range was.Missing {\n\t\tadd(&r.Missing, name)\n\t}\n", ""}},
		tests: tests{revRules, "TestRoster$"}, want: "TestRoster",
	},
	{
		name:  "revocations: an entry of the store that no digest key proves counts",
		edits: []edit{{"verifier/revocations/internal/codec/entry.go", "if !hmac.Equal(sum[:], rest[bareSize:]) {", "if !hmac.Equal(sum[:], rest[bareSize:]) && false {"}},
		tests: tests{revCodec, "TestRoundTrip$"}, want: "TestRoundTrip",
	},
	{
		name:  "revocations: a new KEK makes the digests others",
		edits: []edit{{"verifier/revocations/internal/codec/key.go", "hkdf.Key(sha256.New, []byte(kept), nil,", "hkdf.Key(sha256.New, []byte(kept), []byte(rand.Text()),"}},
		tests: tests{revoking, "TestTimelineKEK$"}, want: "TestTimelineKEK",
	},
	{
		name:  "revocations: a dispute never ends",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "< maxDisputes*recover", "< 1e18"}},
		tests: tests{revRules, "TestState$"}, want: "TestState",
	},
	{
		name:  "revocations: an instance whose clock is behind is compared",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "case a.Minute < now.Minute-oldMinute:", "case false:"}},
		tests: tests{revRules, "TestCompare$"}, want: "TestCompare",
	},
	{
		name:  "revocations: a write of unknown outcome is not looked after",
		edits: []edit{{"verifier/revocations/hold.go", "l.unsure[groupOf(e.Digest, len(l.prints))] = true", ""}},
		tests: tests{revoking, "TestTimelineUnknownOutcome$"}, want: "TestTimelineUnknownOutcome",
	},
	{
		name:  "revocations: a clean note is of a version after the look-up",
		edits: []edit{{"verifier/revocations/marks.go", "m.NoteClean(version)", "m.NoteClean(l.table.Version())"}},
		tests: tests{revoking, "TestCleanMissesNothing$"}, want: "TestCleanMissesNothing",
	},
	{
		name:  "revocations: an entry that moves forward makes no other version",
		edits: []edit{{"verifier/revocations/internal/table/table.go", "if changed = t.putLocked(&e); changed {", "if n := t.size.Load(); t.putLocked(&e) && t.size.Load() != n {"}},
		tests: tests{revoking, "TestRevokedAfterClean$"}, want: "TestRevokedAfterClean",
	},
	{
		name:  "revocations: the marks of all lists are of one generation",
		edits: []edit{{"verifier/revocations/list.go", "generation := rand.Uint64()", "generation := rand.Uint64()*0 + 1"}},
		tests: tests{revoking, "TestMarksAreOfOneList$"}, want: "TestMarksAreOfOneList",
	},
	{
		name:  "verifier: new marks are clean",
		edits: []edit{{"verifier/marks.go", "fresh.marks.token, fresh.marks.clean = t, 0", "fresh.marks.token = t"}},
		tests: tests{checking, "TestNewMarksAreNotClean$"}, want: "TestNewMarksAreNotClean",
	},
	{
		name:  "revocations: a group is discarded that has entries without room",
		edits: []edit{{"verifier/revocations/discard.go", "b.keyless[g] || l.isShortOf(g)", "b.keyless[g]"}},
		tests: tests{revoking, "TestGroupWithoutRoomIsNotDiscarded$"}, want: "TestGroupWithoutRoomIsNotDiscarded",
	},
	{
		name:  "revocations: the digest keys are discarded by one that lacks a key",
		edits: []edit{{"verifier/revocations/discard.go", "len(l.keys.set) > 0 && l.keysErr == nil", "len(l.keys.set) > 0"}},
		tests: tests{revoking, "TestKeyThatCannotBeOpenedIsNotDiscarded$"}, want: "TestKeyThatCannotBeOpenedIsNotDiscarded",
	},
	{
		name:  "revocations: what found no room and is lost is forgotten",
		edits: []edit{{"verifier/revocations/load.go", "for _, e := range before {", "for _, e := range before[:0] {"}},
		tests: tests{revoking, "TestLostWithoutRoom$"}, want: "TestLostWithoutRoom",
	},
	{
		name:  "revocations: an entry beyond the notes is forgotten when the store loses it",
		edits: []edit{{"verifier/revocations/room.go", "s.until, s.beyond.End, l.swept", "s.until, 0, l.swept"}},
		tests: tests{revoking, "TestTimelineBeyondNotes$"}, want: "TestTimelineBeyondNotes",
	},
	{
		name:  "revocations: an entry beyond the notes counts after the tenant was revoked",
		edits: []edit{{"verifier/revocations/room.go", "if l.replacedLocked(s.beyond) {", "if false {"}},
		tests: tests{revoking, "TestTimelineBeyondNotes$"}, want: "TestTimelineBeyondNotes",
	},
	{
		name:  "revocations: a tenant's revocation replaces a session that is beyond the notes",
		edits: []edit{{"verifier/revocations/internal/rules/ends.go", "if b.Kind == table.Session || a.Key", "if a.Key"}},
		tests: tests{revRules, "TestSum$"}, want: "TestSum",
	},
	{
		name:  "rediskeys: a key of a bucket is removed by a command that only looks",
		edits: []edit{{"rotation/rediskeys/store.go", `if instance != "" && r.err != nil && kindOf`, "if r.err != nil && kindOf"}},
		tests: tests{"./rotation/rediskeys", "TestMend$"}, want: "TestMend",
	},
	{
		name:  "revocations: a list that starts begins the set of groups again",
		edits: []edit{{"verifier/revocations/sync.go", "ListsAll: rules.MayDiscard(b.state, l.short.partial() || len(b.keyless)+len(b.broken) > 0),", "ListsAll: true,"}},
		tests: tests{revoking, "TestRedisBrokenTenants$"}, want: "TestRedisBrokenTenants",
	},
	{
		name:  "rediskeys: a user that may not list tenants begins the set of them again",
		edits: []edit{{"rotation/rediskeys/lua/mend.lua", " and broken('SADD', KEYS[2], '')", ""}},
		tests: tests{"./rotation/rediskeys", "TestReaderMendsNoTenants$"}, want: "TestReaderMendsNoTenants",
	},
	{
		name:  "rediskeys: an instance that starts begins the tenants of a bucket again",
		edits: []edit{{"rotation/rediskeys/lua/mend.lua", "if ARGV[1] == '1' then", "if true then"}},
		tests: tests{"./rotation/rediskeys", "TestMendUnknownTenants$"}, want: "TestMendUnknownTenants",
	},
	{
		name:  "rediskeys: what a bucket has of the right type is removed too",
		edits: []edit{{"rotation/rediskeys/lua/mend.lua", "if wrong and redis", "if redis"}},
		tests: tests{"./rotation/rediskeys", "TestMend$"}, want: "TestMend",
	},
	{
		name:  "revocations: a list that starts waits for its next poll",
		edits: []edit{{"verifier/revocations/loop.go", "return min(poll, left)", "return poll"}},
		tests: tests{revoking, "TestTimelineReady$"}, want: "TestTimelineReady",
	},
	{
		name:  "revocations: a clean note counts for a tenant over its share",
		edits: []edit{{"verifier/revocations/marks.go", "if m.CleanAt(version) && len(v.over) == 0 {", "if m.CleanAt(version) {"}},
		tests: tests{revoking, "TestCleanIsNoAnswerLater$"}, want: "TestCleanIsNoAnswerLater",
	},
	{
		name:  "revocations: a clean note counts for other digest keys",
		edits: []edit{{"verifier/revocations/marks.go", "if m.Generation != v.generation {", "if m.Generation != v.generation && !m.CleanAt(l.table.Version()) {"}},
		tests: tests{revoking, "TestCleanIsNoAnswerLater$"}, want: "TestCleanIsNoAnswerLater",
	},
	{
		name:  "revocations: the size of a list in memory is its version",
		edits: []edit{{"verifier/revocation.go", "if l.version.Add(1) == 0 {", "if l.version.Store(uintptr(l.lenLocked() + 1)); false {"}},
		tests: tests{checking, "TestRevokedAfterHits$"}, want: "TestRevokedAfterHits",
	},
	{
		name:  "trie: an edit changes the versions before it",
		edits: []edit{{"verifier/internal/trie/trie.go", "if n.owner == e.owner {", "if n.owner != nil {"}},
		tests: tests{tries, "TestVersions$"}, want: "TestVersions",
	},
	{
		name:  "trie: an edit goes on changing the map that it has returned",
		edits: []edit{{"verifier/internal/trie/trie.go", "e.owner = new(owner)\n\treturn e.m", "return e.m"}},
		tests: tests{tries, "TestVersions$"}, want: "TestVersions",
	},
	{
		name:  "trie: an entry that goes down keeps its place",
		edits: []edit{{"verifier/internal/trie/trie.go", "e.m.hash.bits(old.key, level+1), old)", "e.m.hash.bits(old.key, level), old)"}},
		tests: tests{tries, "TestVersions$"}, want: "TestVersions",
	},
	{
		name:  "sync: an empty list removes all tenants",
		edits: []edit{{"verifier/sync.go", "if len(all) == 0 && s.old.byID.Len() > 0 {", "if false {"}},
		tests: tests{checking, "TestSyncEmptyList$"}, want: "TestSyncEmptyList",
	},
	{
		name:  "sync: the first of two rows of one ID counts",
		edits: []edit{{"verifier/sync.go", "if s.ids[r.ID] > 1 && r.ID != \"\" {", "if s.ids[r.ID] > 1 && s.errs[r.ID] != nil {"}},
		tests: tests{checking, "TestSyncWhoIsBad$"}, want: "TestSyncWhoIsBad",
	},
	{
		name:  "sync: closures of the same code are one Check",
		edits: []edit{{"verifier/sync.go", "return value(a) == value(b)", "return value(a) != 0 && reflect.ValueOf(*a).Pointer() == reflect.ValueOf(*b).Pointer()"}},
		tests: tests{checking, "TestSyncComparesRows$"}, want: "TestSyncComparesRows",
	},
	{
		name:  "sync: a changed row takes an issuer from an unchanged tenant",
		edits: []edit{{"verifier/sync.go", "error{(*dispute).againstUnchanged, (*dispute).againstHolders,", "error{(*dispute).againstHolders,"}},
		tests: tests{checking, "TestSyncWhoIsBad$"}, want: "TestSyncWhoIsBad",
	},
	{
		name:  "resolve: a late answer brings a removed tenant back",
		edits: []edit{{"verifier/resolve.go", "if v.resolver.outdated(f, t.ID) {", "if false {"}},
		tests: tests{checking, "TestResolveRemoved$"}, want: "TestResolveRemoved",
	},
	{
		name:  "resolve: an unknown tenant is asked for at each token",
		edits: []edit{{"verifier/resolve.go", "now.Before(m.until) && m.until.Sub(now) <= absentFor {\n\t\treturn nil, m.err", "now.Before(m.until) && false {\n\t\treturn nil, m.err"}},
		tests: tests{checking, "TestResolve$"}, want: "TestResolve",
	},
	{
		name:  "resolve: names alone evict a tenant in use",
		edits: []edit{{"verifier/lease.go", "case len(p.proven) > p.most-max(p.most/freshShare, 1):", "case len(p.proven) > 0:"}},
		tests: tests{checking, "TestResolveNamesEvictNothing$"}, want: "TestResolveNamesEvictNothing",
	},
	{
		name:  "resolve: an outage means that there is no such tenant",
		edits: []edit{{"verifier/resolve.go", " && !errors.Is(err, ErrUnavailable)", ""}},
		tests: tests{checking, "TestResolve$"}, want: "TestResolve",
	},
	{
		name:  "resolve: strangers may ask without a budget",
		edits: []edit{{"verifier/resolve.go", "case held == nil && !r.budget.take(proved, now):", "case held == nil && !r.budget.take(proved, now) && false:"}},
		tests: tests{checking, "TestResolveBudget$"}, want: "TestResolveBudget",
	},
	{
		name:  "made-up names use the questions that are kept for proved tenants",
		edits: []edit{{"verifier/reserve.go", "case proved && b.kept > 0:", "case b.kept > 0:"}},
		tests: tests{checking, "TestResolveKeepsQuestionsForProvedTenants$"}, want: "it was in use",
	},
	{
		name:  "proved names use up all questions",
		edits: []edit{{"verifier/reserve.go", "b.common = min(b.common+n-forKept, b.rate-most)", "b.kept += n - forKept"}},
		tests: tests{checking, "TestQuestionBudget$"}, want: "want 37 and 25",
	},
	{
		name:  "made-up names use the open questions that are kept",
		edits: []edit{{"verifier/resolve.go", "case proved && r.asking[laneProved] < laneRoom[laneProved]:", "case r.asking[laneProved] < laneRoom[laneProved]:"}},
		tests: tests{checking, "TestResolveKeepsRoomForProvedTenants$"}, want: "while the others wait",
	},
	{
		name:  "logout: an ID token passes",
		edits: []edit{{"verifier/revocations/logout.go", "case c.Nonce != nil:", "case false:"}},
		tests: tests{revoking, "TestABadLogoutTokenDoesNothing$"}, want: "TestABadLogoutTokenDoesNothing",
	},
	{
		name:  "logout: a logout for any client counts",
		edits: []edit{{"verifier/revocations/logout.go", "Audiences: []string{t.ClientID}", "AnyAudience: true"}},
		tests: tests{revoking, "TestABadLogoutTokenDoesNothing$"}, want: "TestABadLogoutTokenDoesNothing",
	},
	{
		name:  "logout: tokens of the second of the logout live on",
		edits: []edit{{"verifier/revocations/logout.go", "t.IssuedAt().Unix()+1", "t.IssuedAt().Unix()"}},
		tests: tests{revoking, "TestALogoutTokenRevokesItsSubjectAndItsSession$"}, want: "TestALogoutTokenRevokesItsSubjectAndItsSession",
	},
	{
		name:  "logout: tokens without sid live on",
		edits: []edit{{"verifier/revocations/logout.go", "c.SID != \"\" && h.hasSID[t.Tenant()]", "c.SID != \"\""}},
		tests: tests{revoking, "TestALogoutTokenRevokesItsSubjectAndItsSession$"}, want: "TestALogoutTokenRevokesItsSubjectAndItsSession",
	},
	{
		name:  "logout: a logout that was not written is not repeated",
		edits: []edit{{"verifier/revocations/logout.go", "h.used.end(key, err == nil)", "h.used.end(key, true)"}},
		tests: tests{revoking, "TestALogoutTokenIsUsedOnce$"}, want: "TestALogoutTokenIsUsedOnce",
	},
	{
		name:  "introspection: an outage is inactive",
		edits: []edit{{"verifier/revocations/introspect.go", "\tcase known(err):", "\tcase err != nil:"}},
		tests: tests{revoking, "TestIntrospectionThatCannotTellIsNeverInactive$"}, want: "TestIntrospectionThatCannotTellIsNeverInactive",
	},
	{
		name:  "introspection: another tenant's tokens",
		edits: []edit{{"verifier/revocations/introspect.go", "case !c.may(t.Tenant()):", "case false:"}},
		tests: tests{revoking, "TestIntrospectionSaysNoMoreOfABadToken$"}, want: "TestIntrospectionSaysNoMoreOfABadToken",
	},
	{
		name:  "clients: any secret",
		edits: []edit{{"verifier/revocations/form.go", "if good != 1 || !known {", "if !known {"}},
		tests: tests{revoking, "TestClientsAuthenticate$"}, want: "TestClientsAuthenticate",
	},
	{
		name:  "revocation: a token of a suspended tenant seems revoked",
		edits: []edit{{"verifier/revocations/form.go", " && reason != verifier.ReasonSuspended", ""}},
		tests: tests{revoking, "TestRevocationRevokesTheToken$"}, want: "TestRevocationRevokesTheToken",
	},
	{
		name:  "revocation: a token of a shared issuer seems dead",
		edits: []edit{{"verifier/revocations/form.go", " && !errors.Is(err, verifier.ErrSharedIssuer)", ""}},
		tests: tests{revoking, "TestTokensOfASharedIssuer$"}, want: "TestTokensOfASharedIssuer",
	},
	{
		name:  "revocation: one tenant of a shared issuer speaks for all",
		edits: []edit{{"verifier/revocations/form.go", "range c.tenants {", "range c.tenants[:min(1, len(c.tenants))] {"}},
		tests: tests{revoking, "TestTokensOfASharedIssuer$"}, want: "TestTokensOfASharedIssuer",
	},
	{
		name:  "revocation: a write that was lost is not repeated",
		edits: []edit{{"verifier/revocations/revocation.go", "jti == \"\" || exp.IsZero() || !h.list.holdsToken(e.Tenant, jti) {", "true {"}},
		tests: tests{revoking, "TestARevokedTokenIsRevokedAgain$"}, want: "TestARevokedTokenIsRevokedAgain",
	},
	{
		name:  "revocation: a dead token takes room",
		edits: []edit{{"verifier/revocations/revocation.go", " || !h.list.holdsToken(e.Tenant, jti)", ""}},
		tests: tests{revoking, "TestATokenOfARevokedSubjectTakesNoRoom$"}, want: "TestATokenOfARevokedSubjectTakesNoRoom",
	},
	{
		name:  "revocation: the last tenant of a shared issuer speaks for all",
		edits: []edit{{"verifier/revocations/form.go", "if weight(failed) > weight(err) {", "if true {"}},
		tests: tests{revoking, "TestVerdictsOfASharedIssuer$"}, want: "TestVerdictsOfASharedIssuer",
	},
	{
		name:  "revocation: nothing was written, and that is no error",
		edits: []edit{{"verifier/revocations/revoke.go", "			last = errBusy", "			last = nil"}},
		tests: tests{revoking, "TestRevocationInAPaddedGroup$"}, want: "TestRevocationInAPaddedGroup",
	},
	{
		name:  "revoke: Redis says that it is years later",
		edits: []edit{{"cmd/keyturn/revoke.go", "if behind > mostBehind {", "if false {"}},
		tests: tests{"./cmd/keyturn", "TestRevokeOnAMachineThatIsSlow$"}, want: "TestRevokeOnAMachineThatIsSlow",
	},
	{
		name:  "revocations: one that has just read the list hides what it holds",
		edits: []edit{{"verifier/revocations/sync.go", " || b.exact && !was && !l.cfg.Transient", " || was && false"}},
		tests: tests{revoking, "TestFleetStartsOneAfterTheOther$"}, want: "TestFleetStartsOneAfterTheOther",
	},
	{
		name:  "revocations: one that starts has to compare with all at one time",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "case m.Same && Age(sent, m.At) <= gap:", "case false:"}},
		tests: tests{revRules, "TestMeeting$"}, want: "TestMeeting",
	},
	{
		name:  "logout: the sessions of one user fill the room",
		edits: []edit{{"verifier/revocations/revoke.go", "perTenant, all = perTenant/2, all/2", "_ = spare"}},
		tests: tests{revoking, "TestSpareEntriesLeaveRoom$"}, want: "TestSpareEntriesLeaveRoom",
	},
	{
		name:  "logout: a session without room keeps its user logged in",
		edits: []edit{{"verifier/revocations/logout.go", "if errors.Is(err, ErrFull) {", "if false {"}},
		tests: tests{revoking, "TestALogoutWithoutRoomForItsSession$"}, want: "TestALogoutWithoutRoomForItsSession",
	},
	{
		name:  "introspection: a bound token is a bearer token",
		edits: []edit{{"verifier/revocations/introspect.go", "if cnf == nil {", "if true {"}},
		tests: tests{revoking, "TestIntrospectionOfABoundToken$"}, want: "TestIntrospectionOfABoundToken",
	},
	{
		name:  "connections: a deadline is not brought forward",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "isLater := c.deadline.IsZero() || !c.deadline.Before(c.timer)", "isLater := true"}},
		tests: tests{serving, "TestTimedConnIsLikeTheConnection$"}, want: "TestTimedConnIsLikeTheConnection",
	},
	{
		name:  "connections: a call that waits keeps its timer",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "case c.waiting == 0:", "case true:"}},
		tests: tests{serving, "TestTimedConnIsLikeTheConnection$"}, want: "TestTimedConnIsLikeTheConnection",
	},
	{
		name:  "revocations: a log that was cut in the middle hides a revocation",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", ` || a.Place == h.Place && a.Place != ""`, ""}},
		tests: tests{revRules, "TestComparePlace$"}, want: "TestComparePlace",
	},
	{
		name:  "revocations: one that starts is ready while acknowledgements are hidden",
		edits: []edit{{"verifier/revocations/internal/rules/state.go", "case s.Good.IsZero() && r.Hidden:", "case false:"}},
		tests: tests{revRules, "TestState$"}, want: "TestState",
	},
	{
		name:  "revocations: forged acknowledgements crowd out real ones",
		edits: []edit{{"verifier/revocations/sync.go", "live && err != nil && !errors.Is(err, codec.ErrNewer) && sum.full", "false"}},
		tests: tests{revoking, "TestNewcomerWaits$"}, want: "TestNewcomerWaits",
	},
	{
		name:  "revocations: a forged acknowledgement disputes nothing",
		edits: []edit{{"verifier/revocations/sync.go", "live && !errors.Is(err, codec.ErrNewer)", "false"}},
		tests: tests{revoking, "TestNewcomerIsNotDeceived$"}, want: "TestNewcomerIsNotDeceived",
	},
	{
		name:  "revocations: one that starts waits for none that it cannot compare",
		edits: []edit{{"verifier/revocations/sync.go", "now.Hidden || hidden, now.Disputed || disputed", "now.Hidden || hidden && false, now.Disputed || disputed && false"}},
		tests: tests{revoking, "TestNewcomerWaits$"}, want: "TestNewcomerWaits",
	},
	{
		name:  "revocations: one that starts waits for ever for an instance that failed",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "disputed = stuck &&", "disputed = stuck && false &&"}},
		tests: tests{revRules, "TestMeeting$"}, want: "TestMeeting",
	},
	{
		name:  "revocations: one that starts gives up on an instance that reads on",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "stuck := exact && place == m.Place", "stuck := exact"}},
		tests: tests{revRules, "TestMeeting$"}, want: "TestMeeting",
	},
	{
		name:  "revocations: one that starts gives up while groups change",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "stuck := exact && place == m.Place", "stuck := place == m.Place"}},
		tests: tests{revRules, "TestMeeting$"}, want: "TestMeeting",
	},
	{
		name:  "revocations: one that starts waits for an instance without room",
		edits: []edit{{"verifier/revocations/internal/rules/acks.go", "!behind && !ahead &&", "(!behind && !ahead || true) &&"}},
		tests: tests{revRules, "TestUnmet$"}, want: "TestUnmet",
	},
	{
		name:  "revocations: an acknowledgement vouches for an entry with the nonce of an earlier one",
		edits: []edit{{"verifier/revocations/internal/codec/ack.go", `return nonce + "@" + id`, `return nonce + "@"`}},
		tests: tests{revoking, "TestNewcomerIsNotDeceived$"}, want: "TestNewcomerIsNotDeceived",
	},
	{
		name:  "rediskeys: acknowledgements dated ahead crowd out others",
		edits: []edit{{"rotation/rediskeys/lua/common.lua", "math.abs(now - date)", "-date"}},
		tests: tests{"./rotation/rediskeys", "TestAcksDatedAheadHideNone$"}, want: "TestAcksDatedAheadHideNone",
	},
	{
		name:  "connections: a call ends with its timer",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "return c.reset() == nil", "return false"}},
		tests: tests{serving, "TestTimedConnIsLikeTheConnection$"}, want: "TestTimedConnIsLikeTheConnection",
	},
	{
		name:  "connections: bytes are written twice",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "c.halfCloser.Write(b[done:])", "c.halfCloser.Write(b)"}},
		tests: tests{serving, "TestTimedConnIsLikeTheConnection$"}, want: "TestTimedConnIsLikeTheConnection",
	},
	{
		name:  "connections: a timeout of TCP counts as one of ours",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "if !errors.Is(err, os.ErrDeadlineExceeded) {", "if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {"}},
		tests: tests{serving, "TestTimedConnErrors$"}, want: "TestTimedConnErrors",
	},
	{
		name:  "connections: each deadline sets a timer",
		edits: []edit{{"cmd/keyturn/internal/server/timedconn.go", "if !c.timer.IsZero() && isLater && !c.hasPassed(c.timer) {", "if isLater && !isLater {"}},
		tests: tests{serving, "TestTimedConnSeldomSetsATimer$"}, want: "TestTimedConnSeldomSetsATimer",
	},
	{
		name:  "tenants that were mended are listed by turns",
		edits: []edit{{"rotation/internal/synced/sync.go", "b.unlisted = len(b.rings)", "b.unlisted = 0"}},
		tests: tests{here, "TestMendedTenantsAreListedAtOnce$"}, want: "TestMendedTenantsAreListedAtOnce",
	},
	{
		name:  "tenants that were mended wait for a poll",
		edits: []edit{{"rotation/internal/synced/sync.go", "if b.unlisted > 0 {", "if false {"}},
		tests: tests{here, "TestMendedTenantsAreListedAtOnce$"}, want: "TestMendedTenantsAreListedAtOnce",
	},
}
