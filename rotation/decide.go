package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/internal/seal"
	"github.com/keyturn/keyturn/rotation/ring"
)

// A scene is a ring as the store had it at one moment: what a change is decided on.
type scene struct {
	tenant   string
	digest   string // "" if there is no ring
	now      time.Time
	deadline time.Duration
	held     *held // complete, and authentic

	sent, received time.Time // around now, by our clock
}

// A minting is a record that is to be sealed.
type minting struct {
	ring.Record
	material *seal.Material
}

// A proposal is a change before it is sealed.
type proposal struct {
	op         ring.Op
	kid        string
	seq        int
	head       int           // 0: as it is
	minted     []minting     // to seal
	merged     []*heldRecord // sealed already
	tenantKeys []sealedTenantKey
	facts      []proposedFact
	bounds     []ring.Bound  // besides those of the facts
	remove     []string      // kids: all but their revocation
	known      time.Duration // how long after it was published what was minted may sign, at the earliest
	unsigned   time.Time     // until when nobody signs with what was promoted; zero if somebody does
}

// A proposedFact is to lie from from to to after the time of the store.
type proposedFact struct {
	ring.FactID
	at       time.Time
	from, to time.Duration
}

func (s *scene) refuse(kid, reason string, from time.Time) error {
	return &ring.RefusedError{Tenant: s.tenant, KID: kid, Reason: reason, From: from}
}

// policy is the timing of the newest record.
func (s *scene) policy() *ring.Policy { return &s.held.newest().Timing }

// ring reports an error if there is no ring to change.
func (s *scene) ring() error {
	switch {
	case s.held.plan.Dead:
		return s.refuse("", "its ring was destroyed", time.Time{})
	case s.held.newest() == nil:
		return &ring.Error{Text: fmt.Sprintf("tenant %q has no ring in the store: create one", s.tenant), Err: keystore.ErrNotFound}
	}
	return nil
}

// past is a time for a fact that has just happened. It lies within the bounds of
// the store until it gets there, and not before anything that is known.
func (s *scene) past() time.Time { return later(s.now, s.held.plan.Past) }

// soon is a time for what others have to hear of: not before the store has it.
func (s *scene) soon(p *ring.Policy) time.Time { return s.now.Add(p.Window(s.deadline) / 2) }

func (s *scene) happened(p *proposal, kind ring.FactKind, kid string, timing *ring.Policy) {
	p.facts = append(p.facts, proposedFact{ring.FactID{Kind: kind, KID: kid}, s.past(), -timing.Window(s.deadline), 0})
}

func (s *scene) announced(p *proposal, kid string, timing *ring.Policy) {
	p.facts = append(p.facts, proposedFact{ring.FactID{Kind: ring.FactAnnounced, KID: kid}, s.soon(timing), 0, timing.Window(s.deadline)})
}

// create decides about the first ring of a tenant: one key that signs now, and one
// that is pending.
func (s *scene) create(policy ring.Policy, made func() (*seal.Material, error)) (*proposal, error) {
	if !s.held.vacant() {
		return nil, s.refuse("", "it has a ring already", time.Time{})
	}
	p := &proposal{op: ring.OpCreate}
	next := later(s.now.Add(policy.Every), s.now.Add(policy.Propagation+2*policy.ClockSkew))
	for i, activate := range []time.Time{s.now, next} {
		if err := s.mint(p, policy, i+1, activate, made); err != nil {
			return nil, err
		}
	}
	p.kid, p.seq = p.minted[0].KID, 1
	window := policy.Window(s.deadline)
	p.bounds = append(p.bounds, ring.Bound{At: s.now, From: -window, To: window})
	return p, nil
}

// signPeriods is for how many periods a key signs if nobody mints another. Then the
// tenant stops signing, rather than never to turn its keys again without a word.
const signPeriods = 3

// mint adds a new key to p.
func (s *scene) mint(p *proposal, policy ring.Policy, seq int, activate time.Time, made func() (*seal.Material, error)) error {
	m, err := made()
	if err != nil {
		return err
	}
	if m.Algorithm != policy.Algorithm {
		return &ring.Error{Text: fmt.Sprintf("material for %s, the policy has %s", m.Algorithm, policy.Algorithm)}
	}
	r := ring.Record{Tenant: s.tenant, KID: m.KID, Seq: seq, Algorithm: policy.Algorithm, Created: s.created(p), ActivateAt: activate,
		SignUntil: activate.Add(signPeriods * policy.Every), Origin: ring.Generated, Timing: policy}
	p.minted = append(p.minted, minting{r, m})
	p.kid, p.seq, p.head = r.KID, seq, seq
	s.announced(p, r.KID, &policy)
	p.known = s.known(&policy)
	return nil
}

// created is when the next record of p is created: after all others, by which those that
// are gone are told.
func (s *scene) created(p *proposal) time.Time {
	last := s.held.facts.CollectedUntil
	for _, r := range s.held.records {
		last = later(last, r.Created)
	}
	for i := range p.minted {
		last = later(last, p.minted[i].Created)
	}
	return later(s.now, last.Add(time.Millisecond))
}

// due reports whether the ring has no key pending: a standby has to be there nearly
// always, to be promoted.
func (h *held) due(now time.Time) bool {
	return h.newest() != nil && !h.plan.Dead && len(h.plan.Pending(now)) == 0
}

// mintNext decides about the next key: under policy, to sign after last, or, if
// that is nil, as soon as it may.
func (s *scene) mintNext(p *proposal, policy ring.Policy, last *ring.PlannedKey, made func() (*seal.Material, error)) error {
	if from := s.mintFrom(); s.now.Before(from) {
		return s.refuse("", "the last key was minted less than Freshness and ClockSkew ago", from)
	}
	return s.mintAfter(p, policy, last, made)
}

// mintAfter is mintNext, however soon after the last.
func (s *scene) mintAfter(p *proposal, policy ring.Policy, last *ring.PlannedKey, made func() (*seal.Material, error)) error {
	propagation := max(policy.Propagation, s.policy().Propagation)
	soonest := s.now.Add(propagation + 2*policy.ClockSkew)
	activate, latest := soonest, s.now
	if last != nil {
		turn := last.ActivatesAt.Add(last.Timing.Every)
		if ends := last.SignUntil.Add(max(0, last.ActivatesAt.Sub(last.ActivateAt))); ends.Before(turn) {
			turn = ends
		}
		activate, latest = later(soonest, turn), later(s.now, last.ActivatesAt)
	}
	every := policy.Every
	if last != nil {
		every = max(every, last.Timing.Every)
	}
	p.bounds = append(p.bounds, ring.Bound{At: activate, From: propagation, To: latest.Sub(s.now) + every + propagation + policy.Window(s.deadline)})
	return s.mint(p, policy, s.held.maxSeq()+1, activate, made)
}

// mintFrom is when the next may be minted: two at a time would not become known one
// by one.
func (s *scene) mintFrom() time.Time {
	n := s.held.newest()
	return n.Created.Add(n.Timing.Freshness + n.Timing.ClockSkew)
}

// mintDue is what a rotator does by itself. It is nil if there is nothing to do.
func (s *scene) mintDue(made func() (*seal.Material, error)) (*proposal, error) {
	if !s.held.due(s.now) || s.now.Before(s.mintFrom()) {
		return nil, nil
	}
	p := &proposal{op: ring.OpMint}
	return p, s.mintNext(p, *s.policy(), s.lastInOrder(), made)
}

// takeOver is what a rotator does by itself if nobody signs, since the key that did was
// revoked, or is there no more: the next does not wait for its schedule. It is nil if there
// is nothing to do, or not yet.
func (s *scene) takeOver() *proposal {
	pending := s.held.plan.Pending(s.now)
	current := s.held.plan.Current(s.now)
	if s.held.plan.Dead || len(pending) == 0 || current >= 0 && s.held.plan.InOrder[current].RevokedAt.IsZero() || s.now.Before(s.usableFrom(&pending[0])) {
		return nil
	}
	p := &proposal{op: ring.OpPromote}
	s.makeSign(p, &pending[0], false)
	return p
}

func (s *scene) lastInOrder() *ring.PlannedKey {
	if n := len(s.held.plan.InOrder); n > 0 {
		return &s.held.plan.InOrder[n-1]
	}
	return nil
}

// setPolicy mints the next key under another policy, whether or not one is pending.
func (s *scene) setPolicy(policy ring.Policy, made func() (*seal.Material, error)) (*proposal, error) {
	if err := s.ring(); err != nil {
		return nil, err
	}
	if err := s.room(&policy); err != nil {
		return nil, err
	}
	p := &proposal{op: ring.OpMint}
	return p, s.mintNext(p, policy, s.lastInOrder(), made)
}

// usableFrom returns when every fresh instance knows k, and every reader of the
// JWK Set: from then on it may sign.
func (s *scene) usableFrom(k *ring.PlannedKey) time.Time {
	return s.publishedAt(k).Add(s.known(&k.Timing))
}

// known is how long after it was published a key of that policy is known, and cannot be
// lost any more: before that nobody signs with it. Who has not heard of the policy calls
// itself fresh, and reads the JWK Set, by another one of the ring.
func (s *scene) known(p *ring.Policy) time.Duration {
	t := max(p.Dwell, p.Freshness+p.ClockSkew+p.ReaderStaleness)
	for _, r := range s.held.records {
		t = max(t, r.Timing.Freshness+r.Timing.ClockSkew+r.Timing.ReaderStaleness)
	}
	return t
}

// publishedAt returns when k became known, anew if it was merged back. Only the store
// knows that exactly, and anyone can write what it says: so it is believed within what
// is authentic, which was proposed just before, and for some time just after.
func (s *scene) publishedAt(k *ring.PlannedKey) time.Time {
	earliest, latest := k.Created.Add(-time.Millisecond), k.Created // see created
	if announced, ok := s.held.facts.At(ring.FactAnnounced, k.KID); ok {
		latest = later(latest, announced)
	}
	if again, ok := s.held.facts.At(ring.FactRepublished, k.KID); ok {
		earliest = later(earliest, again.Add(-k.Timing.Window(s.deadline)))
		latest = later(latest, again)
	}
	if said := s.held.publishedAt(k.KID); !said.Before(earliest) && !said.After(latest) {
		return said
	}
	return latest
}

// promote decides about making kid sign now.
func (s *scene) promote(kid string, force bool) (*proposal, error) {
	if err := s.ring(); err != nil {
		return nil, err
	}
	k, first, err := s.pendingKey(kid)
	if err != nil {
		return nil, err
	}
	switch early := s.now.Before(s.usableFrom(k)); {
	case force:
	case !first && early:
		return nil, s.refuse(kid, "another key is pending before it, and "+tooFresh, s.usableFrom(k))
	case !first:
		return nil, s.refuse(kid, "another key is pending before it", time.Time{})
	case early:
		return nil, s.tooFresh(k)
	}
	if err := s.room(s.standby()); err != nil {
		return nil, err
	}
	p := &proposal{op: ring.OpPromote}
	s.makeSign(p, k, force)
	return p, nil
}

// standby is the policy of the key that has to be minted when the next one pending is made
// to sign, or nil if another is pending.
func (s *scene) standby() *ring.Policy {
	if len(s.held.plan.Pending(s.now)) > 1 {
		return nil
	}
	return s.policy()
}

// room refuses to have a key retire, or one of a policy minted besides, by hand, if the JWK
// Set would get too large: its readers bound it. What comes by schedule afterwards is not
// refused: it adds at most what the policy allows in the time that tokens live.
func (s *scene) room(minted *ring.Policy) error {
	var drops []time.Time // when those that are published drop out
	n := 0
	for i := range s.held.plan.InOrder {
		k := &s.held.plan.InOrder[i]
		_, public := s.held.recordOf(k).Key.Public()
		if !public || !k.Published(s.now) {
			continue
		}
		n++
		if !k.DroppedAt.IsZero() {
			drops = append(drops, k.DroppedAt.Add(2*k.Timing.ClockSkew))
		}
	}
	if minted != nil && !minted.Algorithm.Symmetric() {
		n++
	}
	if n <= ring.MaxPublished || len(drops) == 0 { // to wait is of use only for those that end
		return nil
	}
	slices.SortFunc(drops, time.Time.Compare)
	return s.refuse("", fmt.Sprintf("it would publish %d keys at once, of which readers take %d: revoke one, or wait until the tokens of another have ended", n, ring.MaxPublished),
		drops[min(n-ring.MaxPublished, len(drops))-1])
}

func (s *scene) tooFresh(k *ring.PlannedKey) error {
	return s.refuse(k.KID, tooFresh, s.usableFrom(k))
}

const tooFresh = "it has not been published for long enough: instances that have not heard of it would refuse its tokens"

func (s *scene) pendingKey(kid string) (k *ring.PlannedKey, first bool, err error) {
	r := s.held.find(kid)
	if r == nil {
		return nil, false, &ring.Error{Text: fmt.Sprintf("tenant %q has no key %q", s.tenant, kid), Err: keystore.ErrNotFound}
	}
	pending := s.held.plan.Pending(s.now)
	for i := range pending {
		if pending[i].KID == kid {
			return &pending[i], i == 0, nil
		}
	}
	state := ring.Retired
	for _, k := range s.held.plan.At(s.now).Keys {
		if k.KID == kid {
			state = k.State
		}
	}
	return nil, false, s.refuse(kid, fmt.Sprintf("it is %s: only a pending key can be promoted", state), time.Time{})
}

// makeSign adds to p that k signs from now on.
func (s *scene) makeSign(p *proposal, k *ring.PlannedKey, force bool) {
	s.happened(p, ring.FactPromoted, k.KID, &k.Timing)
	if force {
		s.happened(p, ring.FactForced, k.KID, &k.Timing)
	}
	s.announced(p, k.KID, &k.Timing)
	p.kid, p.seq = k.KID, k.Seq
	if from := k.Created.Add(k.Timing.Dwell); !k.First && s.now.Before(from) {
		p.unsigned = from
	}
}

// rotate decides about making the next pending key sign now, and minting another.
// Without one that is pending it mints.
func (s *scene) rotate(force bool, made func() (*seal.Material, error)) (*proposal, error) {
	if err := s.ring(); err != nil {
		return nil, err
	}
	pending := s.held.plan.Pending(s.now)
	if len(pending) == 0 {
		p := &proposal{op: ring.OpMint}
		return p, s.mintNext(p, *s.policy(), s.lastInOrder(), made)
	}
	next := &pending[0]
	if from := s.usableFrom(next); !force && s.now.Before(from) {
		return nil, s.tooFresh(next)
	}
	if err := s.room(s.standby()); err != nil {
		return nil, err
	}
	p := &proposal{op: ring.OpRotate}
	if promoted := *next; len(pending) == 1 {
		promoted.ActivatesAt = s.past()
		if err := s.mintAfter(p, *s.policy(), &promoted, made); err != nil {
			return nil, err
		}
	}
	s.makeSign(p, next, force)
	return p, nil
}

// revoke decides about kid's revocation. It returns nil if it was revoked already.
func (s *scene) revoke(kid string, force bool, made func() (*seal.Material, error)) (*proposal, error) {
	if err := s.ring(); err != nil {
		return nil, err
	}
	r := s.held.find(kid)
	if r == nil {
		return nil, &ring.Error{Text: fmt.Sprintf("tenant %q has no key %q", s.tenant, kid), Err: keystore.ErrNotFound}
	}
	if _, revoked := s.held.facts.At(ring.FactRevoked, kid); revoked {
		return nil, nil
	}
	p := &proposal{op: ring.OpRevoke}
	s.happened(p, ring.FactRevoked, kid, &r.Timing)
	if current := s.held.plan.Current(s.now); current >= 0 && s.held.plan.InOrder[current].KID == kid {
		if err := s.succeed(p, kid, force, made); err != nil {
			return nil, err
		}
	}
	p.kid, p.seq = kid, r.Seq
	return p, nil
}

// succeed adds to p who signs after kid, which is being revoked.
func (s *scene) succeed(p *proposal, kid string, force bool, made func() (*seal.Material, error)) error {
	pending, t := s.held.plan.Pending(s.now), s.policy()
	until := moment(s.now.Add(s.known(t)))
	switch {
	case len(pending) > 0 && !s.now.Before(s.usableFrom(&pending[0])):
		s.makeSign(p, &pending[0], false)
		return nil
	case !force && len(pending) > 0:
		return s.refuse(kid, fmt.Sprintf("it signs, and the next key, %q, has not been published for long enough to take over; "+
			"force it, and the tenant has no key to sign with until %s", pending[0].KID, until), s.usableFrom(&pending[0]))
	case !force:
		return s.refuse(kid, "it signs, and no key is pending that could take over; force it, and the tenant has no key to sign with until "+until, time.Time{})
	}
	return s.mint(p, *t, s.held.maxSeq()+1, s.now.Add(s.known(t)), made)
}

// collect decides about removing what verifies nothing any more: nil if there is
// nothing to do. What was removed is gone, whoever puts its record back: its place in the
// order went with facts that are removed, too. So what is removed was created before all
// that stays, but for what was revoked before it took effect, which stays revoked.
func (s *scene) collect() *proposal {
	over := func(k *ring.PlannedKey) bool {
		return s.held.plan.Dropped(k, s.now.Add(-k.Timing.Freshness-k.Timing.ClockSkew))
	}
	inOrder, left := s.held.plan.InOrder, s.held.plan.NeverActive
	n := slices.IndexFunc(inOrder, func(k ring.PlannedKey) bool { return !over(&k) })
	if n < 0 {
		n = len(inOrder)
	}
	p := &proposal{op: ring.OpCollect, remove: slices.Clone(s.held.litter)}
	stays := time.Time{} // when the first of those that stay was created
	for i := range inOrder[n:] {
		if at := inOrder[n+i].Created; stays.IsZero() || at.Before(stays) {
			stays = at
		}
	}
	for i := range left { // signing has to know of a revocation that is not confirmed yet
		if at := left[i].Created; !over(&left[i]) && (stays.IsZero() || at.Before(stays)) {
			stays = at
		}
	}
	gone := s.held.facts.CollectedUntil
	for i := range inOrder[:n] {
		if k := &inOrder[i]; stays.IsZero() || k.Created.Before(stays) {
			p.remove, gone = append(p.remove, k.KID), later(gone, k.Created)
		}
	}
	for i := range left {
		if over(&left[i]) {
			p.remove = append(p.remove, left[i].KID)
		}
	}
	if len(p.remove) == 0 {
		return nil
	}
	if gone.After(s.held.facts.CollectedUntil) {
		p.facts = append(p.facts, proposedFact{ring.FactID{Kind: ring.FactCollected}, gone, -forever, 0})
	}
	p.kid = p.remove[0]
	return p
}
