package jwks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/unknown"
	"github.com/keyturn/keyturn/keystore"
)

const (
	// kidMark stands for the kid in the URL template of OpenPEM.
	kidMark = "{kid}"

	// maxPEMKids is how many kids with a key a PEMSource holds. Strangers cause one new kid every
	// ten seconds at most, so a kid that was looked up within the last ten minutes is not the oldest
	// of so many.
	maxPEMKids = 64
)

// A PEMSource is the [keystore.Refresher] of one tenant whose issuer publishes its keys one by one,
// each at a URL of its own. It asks for a key when a token names it. Then it keeps the key in sync
// as a [Source] does, which it has for each kid. A PEMSource is safe for concurrent use.
type PEMSource struct {
	c             *Client
	tenant        string
	before, after string // of the kid, in the URL
	cfg           SourceConfig

	last atomic.Pointer[pemKid] // the kid that Lookup found last

	mu      sync.RWMutex // guards the fields below; taken before the lock of an endpoint
	closed  bool
	kids    map[string]*pemKid
	budget  unknown.Budget // of kids that are asked for the first time
	missing unknown.Memory // kids that the issuer does not have
}

var (
	_ keystore.Refresher = (*PEMSource)(nil)
	_ keystore.UseNoter  = (*PEMSource)(nil)
)

// A pemKid is a kid that is held, or asked for.
type pemKid struct {
	kid    string
	open   func() (*Source, error) // once
	source atomic.Pointer[Source]  // nil until open has returned
	found  atomic.Int64            // when Lookup found it, as Unix nanoseconds
}

var (
	errNotAsked = failf(StepResponse, "the issuer was not asked for this kid yet")
	errTooMany  = failf(StepResponse, "too many kids were asked for in a short time")
)

// OpenPEM returns a source of keys that the issuer of tenant publishes one by one: at urlTemplate
// with {kid} replaced, as PEM (PUBLIC KEY, RFC 7468, section 13). AWS load balancers do so:
//
//	client.OpenPEM("acme", "https://public-keys.auth.elb.eu-west-1.amazonaws.com/{kid}", jwks.SourceConfig{})
//
// A kid must be of 1 to 64 letters, digits, "-" and "_" of ASCII; any other is not found, without a
// request. If the issuer answers 404 or 410, the kid is not found, for ten seconds. Any other failure
// is unavailable. The key decides on its algorithms, as that of a JWK without alg does.
//
// Kids that are not held share the budget of one URL: three at once, and one more every ten seconds.
// 64 kids with a key are held. One more displaces the kid that was not used for the longest time.
//
// It asks nothing of the network. The error is that of [Client.Open].
func (c *Client) OpenPEM(tenant, urlTemplate string, cfg SourceConfig) (*PEMSource, error) {
	before, after, ok := strings.Cut(urlTemplate, kidMark)
	if !ok || strings.Contains(after, kidMark) {
		return nil, failf(StepURL, "want %s once in the URL, where the kid is", kidMark)
	}
	a, failed := c.checkOpen(tenant, before+"a"+after, &cfg)
	if failed != nil {
		return nil, failed
	}
	if b, failed := c.checkOpen(tenant, before+"b"+after, &cfg); failed != nil || originOf(a) != originOf(b) {
		return nil, failf(StepURL, "%s is in the host: a token could choose whom to ask", kidMark)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	return &PEMSource{
		c: c, tenant: tenant, before: before, after: after, cfg: cfg, kids: make(map[string]*pemKid),
		budget:  unknown.Budget{Burst: demandBurst, Every: demandEvery},
		missing: unknown.Memory{Most: maxMissing, For: missingFor},
	}, nil
}

// pemKID matches the kids that may be part of a URL.
var pemKID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// knows reports whether the source could ever have a key of id.
func (p *PEMSource) knows(id keystore.ID) bool {
	return id.Tenant == p.tenant && pemKID.MatchString(id.KID)
}

// Tenant returns the tenant that the source was opened for.
func (p *PEMSource) Tenant() string { return p.tenant }

// Serves reports whether tenant is the one that the source was opened for.
func (p *PEMSource) Serves(tenant string) bool { return tenant == p.tenant }

// CanServe reports whether the source can ever have a key of alg: not of HS*.
func (p *PEMSource) CanServe(tenant string, alg keystore.Algorithm) bool {
	return tenant == p.tenant && !alg.Symmetric()
}

// Lookup implements [keystore.KeyStore]. The error wraps [keystore.ErrUnavailable] for a kid that the
// issuer was not asked for, and in the cases of [Source.Lookup]. It wraps [keystore.ErrNotFound] for
// another tenant, a kid that cannot be one, and a kid that the issuer does not have.
func (p *PEMSource) Lookup(id keystore.ID, alg keystore.Algorithm) ([]*keystore.Key, error) {
	if !p.knows(id) {
		return nil, keystore.ErrNotFound
	}
	now := p.c.now()
	p.mu.RLock()
	k, closed, missing := p.kids[id.KID], p.closed, p.missing.Has(unknown.ID{KID: id.KID}, now, 0)
	p.mu.RUnlock()
	switch {
	case closed:
		return nil, unavailable(errClosed)
	case k != nil && k.source.Load() != nil:
		keys, err := k.source.Load().Lookup(id, alg)
		if err == nil {
			k.found.Store(now.UnixNano())
			p.last.Store(k)
		}
		return keys, err
	case missing:
		return nil, keystore.ErrNotFound
	}
	return nil, unavailable(errNotAsked)
}

// Refresh implements [keystore.Refresher]. It asks the issuer for a kid that is not held, within the
// budget that all such kids share, and [Config.OnDemand]. For a kid that is held it is
// [Source.Refresh]. While the budget is spent, the error wraps [keystore.ErrUnavailable]: whether the
// issuer has that key is not known.
func (p *PEMSource) Refresh(ctx context.Context, id keystore.ID) error {
	if !p.knows(id) {
		return keystore.ErrNotFound
	}
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	k, fresh, err := p.ask(id.KID)
	if err != nil {
		return err
	}
	s, err := k.open()
	if err != nil {
		p.settle(k, nil)
		return unavailable(err)
	}
	if fresh {
		s.e.hurry(p.inUse())
	}
	err = s.Refresh(ctx, id)
	p.settle(k, err)
	if errors.Is(err, keystore.ErrUnavailable) && p.isMissing(id.KID) { // another caller has settled it
		return keystore.ErrNotFound
	}
	return err
}

func (p *PEMSource) isClosed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.closed
}

func (p *PEMSource) isMissing(kid string) bool {
	now := p.c.now()
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.missing.Has(unknown.ID{KID: kid}, now, 0)
}

// ask returns the kid, and whether it was not held or asked for until now.
func (p *PEMSource) ask(kid string) (k *pemKid, fresh bool, err error) {
	now := p.c.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, unavailable(errClosed)
	}
	if k = p.kids[kid]; k != nil && !k.ended() {
		return k, false, nil
	}
	if k != nil && k.isMissing(now) { // no caller has settled it yet
		p.missing.Add(unknown.ID{KID: kid}, now, 0)
	}
	if p.missing.Has(unknown.ID{KID: kid}, now, 0) {
		return nil, false, keystore.ErrNotFound
	}
	if !p.budget.Take(now) {
		return nil, false, unavailable(errTooMany)
	}
	for _, k := range p.kids { // whose callers did not wait for the end
		if k.ended() {
			p.dropLocked(k)
		}
	}
	kid = strings.Clone(kid) // it is part of a token
	k = &pemKid{kid: kid}
	k.open = sync.OnceValues(func() (*Source, error) {
		s, err := p.c.open(p.tenant, p.before+kid+p.after, kindPEM, kid, p.cfg)
		if err == nil {
			k.source.Store(s)
			if p.isClosed() { // Close may not have seen it
				s.e.detach(s)
				return nil, errClosed
			}
		}
		return s, err
	})
	k.found.Store(now.UnixNano())
	p.kids[kid] = k
	return k, true, nil
}

// ended reports whether a kid has no key, and is not asked for any longer.
func (k *pemKid) ended() bool {
	s := k.source.Load()
	return s != nil && s.e.isEmpty()
}

// isMissing reports whether the issuer answered a moment ago that it does not have the kid. The kid
// must have ended.
func (k *pemKid) isMissing(now time.Time) bool {
	v := k.source.Load().e.view.Load()
	return v.inSync(now) && now.Sub(v.lastGood).Abs() < missingFor
}

// settle drops a kid that turned out to have no key. A kid with a key displaces another one if there
// are too many.
func (p *PEMSource) settle(k *pemKid, err error) {
	now := p.c.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := k.source.Load(); s == nil || k.ended() {
		if errors.Is(err, keystore.ErrNotFound) {
			p.missing.Add(unknown.ID{KID: k.kid}, now, 0)
		}
		p.dropLocked(k)
		return
	}
	for len(p.kids) > maxPEMKids {
		oldest := p.oldestLocked(now)
		if oldest == nil {
			return
		}
		p.dropLocked(oldest)
	}
}

// oldestLocked returns the kid to displace: of those that no token was verified with lately, or else
// of all, the one that was not looked up for the longest time. Kids that are asked for stay.
func (p *PEMSource) oldestLocked(now time.Time) (oldest *pemKid) {
	oldestUsed := false
	for _, k := range p.kids {
		s := k.source.Load()
		if s == nil || s.e.isAsking() {
			continue
		}
		used := s.e.isInUse(now)
		if oldest == nil || oldestUsed && !used || oldestUsed == used && k.found.Load() < oldest.found.Load() {
			oldest, oldestUsed = k, used
		}
	}
	return oldest
}

// dropLocked forgets a kid, and withdraws its key.
func (p *PEMSource) dropLocked(k *pemKid) {
	if p.kids[k.kid] == k {
		delete(p.kids, k.kid)
	}
	if s := k.source.Load(); s != nil {
		s.e.detach(s) // Close of the Client waits for its attempt
	}
}

// held returns the sources of the kids.
func (p *PEMSource) held() (all []*Source) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, k := range p.kids {
		if s := k.source.Load(); s != nil {
			all = append(all, s)
		}
	}
	return all
}

// inUse reports whether a token of one of the kids was verified lately.
func (p *PEMSource) inUse() bool {
	now := p.c.now()
	for _, s := range p.held() {
		if s.e.isInUse(now) {
			return true
		}
	}
	return false
}

// NoteUse implements [keystore.UseNoter], as [Source.NoteUse]. A verifier does not say of which kid
// the token was. So it counts for the kid that was found last, and for those that were found within
// the last ten minutes.
func (p *PEMSource) NoteUse(tenant string) {
	k := p.last.Load()
	if tenant != p.tenant || k == nil || k.source.Load().e.used.Load() {
		return
	}
	now := p.c.now()
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, other := range p.kids {
		if s := other.source.Load(); s != nil && (other == k || now.Sub(time.Unix(0, other.found.Load())).Abs() < minIdle) {
			s.NoteUse(tenant)
		}
	}
}

// Ready returns nil if the source can answer for tenant, now or with the next token: it holds no kid,
// or one that is ready as in [Source.Ready].
func (p *PEMSource) Ready(tenant string) (err error) {
	if tenant != p.tenant {
		return keystore.ErrNotFound
	}
	if p.isClosed() {
		return unavailable(errClosed)
	}
	for _, s := range p.held() {
		if !s.e.hasKeys() {
			continue // it is asked for
		}
		if err = s.Ready(tenant); err == nil {
			return nil
		}
	}
	return err
}

// Close ends the source, as [Source.Close] does.
func (p *PEMSource) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	all := p.held()
	for _, s := range all { // even if ctx has ended
		s.e.detach(s)
	}
	for _, s := range all {
		if err := s.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readPEM reads the public key of a kid. The error quotes nothing.
func readPEM(kid string, doc []byte) (r Report, failed *Error) {
	block, rest := pem.Decode(withoutBOM(doc))
	switch {
	case block == nil:
		return r, failf("", "not a public key in PEM%s", describeText(doc))
	case holdsPrivate(doc):
		r.Skipped = []Skipped{newSkipped(0, kid, errPrivate)}
		return r, nil
	case block.Type != "PUBLIC KEY":
		return r, failf("", "PEM, but not of a PUBLIC KEY")
	case len(bytes.TrimSpace(rest)) > 0:
		return r, failf("", "more than one public key in PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return r, failf("", "PEM of a public key that cannot be read, or of an unknown type")
	}
	var first error
	for _, alg := range algorithmsOf(pub) {
		key, err := keystore.NewPublic(keystore.ID{KID: kid}, alg, pub)
		switch {
		case err == nil:
			r.Keys = append(r.Keys, key)
		case first == nil:
			first = err
		}
	}
	if len(r.Keys) == 0 {
		if first == nil {
			first = errors.New("no signature algorithm known here is for such a key")
		}
		r.Skipped = []Skipped{newSkipped(0, kid, first)}
	}
	return r, nil
}

// holdsPrivate reports whether one of the blocks is a private key. It may stand behind a certificate, its
// public key, or the EC PARAMETERS that "openssl ecparam -genkey" writes.
func holdsPrivate(doc []byte) bool {
	for block, rest := pem.Decode(withoutBOM(doc)); block != nil; block, rest = pem.Decode(rest) {
		if strings.Contains(block.Type, "PRIVATE") {
			return true
		}
	}
	return false
}

// algorithmsOf returns the algorithms that a public key allows, as for a JWK without alg.
func algorithmsOf(pub any) []keystore.Algorithm {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return allowed(typeRSA, "")
	case *ecdsa.PublicKey:
		return allowed("EC", pub.Params().Name)
	case ed25519.PublicKey:
		return allowed("OKP", "Ed25519")
	}
	return nil
}
