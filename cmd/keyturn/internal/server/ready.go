package server

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation"
)

// What /readyz says of a tenant, and of the server as a whole.
const (
	stateReady    = "ready"
	stateDegraded = "degraded" // its tokens are verified, but the server may not have heard of everything
	stateNotReady = "not ready"
	stateStopping = "stopping" // the server takes no new requests
)

// A readiness is what /readyz answers. Everyone may read the counts. The names of tenants, and the
// reasons, are for the admin listener alone.
type readiness struct {
	Status   string                 `json:"status"`
	Ready    int                    `json:"ready"`
	Degraded int                    `json:"degraded"`
	NotReady int                    `json:"not_ready"`
	Tenants  map[string]tenantReady `json:"tenants,omitempty"`

	Revocations *revocationsReady `json:"revocations,omitempty"` // nil without a list
}

// add counts one more tenant.
func (r *readiness) add(state string) {
	switch state {
	case stateReady:
		r.Ready++
	case stateDegraded:
		r.Degraded++
	default:
		r.NotReady++
	}
}

// A tenantReady is what /readyz says of a tenant, on the admin listener.
type tenantReady struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`

	alone bool // it is not ready for a reason of its own, which no other instance mends

	// Warnings are the keys of the issuer's set that are skipped or irregular.
	Warnings []string `json:"warnings,omitempty"`
}

// A purpose is what a server has to be ready for.
type purpose string

// The values of the parameter for of /readyz.
const (
	forVerify purpose = "verify" // tokens: answering each one rightly
	forSign   purpose = "sign"   // for the tenants that have rings
)

// ready returns whether the tokens of each tenant can be verified, or signed, and says so of the
// whole:
//
//   - It is as ready as the least ready of the rings. A ring that no instance signs for, that cannot be
//     opened, or that Redis does not have, only degrades it: no other instance would do better.
//   - A ring that a reload has added only degrades it until it was ready once. Each instance reloads at
//     about the same time, so otherwise a new tenant would take all of them from the others.
//   - An issuer that does not answer only degrades it: the tokens of other tenants can be verified.
//   - It is not ready if no tenant is.
func (t *tenants) ready(why purpose) readiness {
	all := readiness{Status: stateReady, Tenants: make(map[string]tenantReady)}
	for _, tenant := range t.all {
		if why == forSign && !tenant.Ring {
			continue // another program signs its tokens
		}
		one := t.readyOf(&tenant, why)
		if joins := t.joining[tenant.Rules.ID]; joins != nil && one.Status != stateNotReady {
			joins.Store(false)
		} else if joins != nil && joins.Load() {
			one.alone = true
		}
		all.Tenants[tenant.Rules.ID] = one
		all.add(one.Status)
		switch {
		case one.Status == stateReady:
		case one.Status == stateNotReady && tenant.Ring && !one.alone:
			all.Status = stateNotReady
		case all.Status == stateReady:
			all.Status = stateDegraded
		}
	}
	if all.Ready+all.Degraded == 0 {
		all.Status = stateNotReady
	}
	return all
}

func (t *tenants) readyOf(tenant *Tenant, why purpose) tenantReady {
	switch {
	case t.pems[tenant.Rules.ID] != nil:
		return tenantReady{Status: stateReady, Reason: "the issuer is asked for each key with the first token of it"}
	case tenant.Source != nil:
		source := t.sources[tenant.Rules.ID]
		status := source.Status()
		one := sourceReady(status, source.Ready(tenant.Rules.ID) == nil)
		one.Warnings = keyWarnings(status)
		return one
	case tenant.Ring:
		return t.rings.ready(tenant.Rules.ID, why)
	}
	return tenantReady{Status: stateReady}
}

// ready returns the state of a tenant's ring.
func (r *rings) ready(tenant string, why purpose) tenantReady {
	status, err := r.keyring.Tenant(tenant)
	if err != nil {
		status = rotation.TenantStatus{Err: err}
	}
	state, reason := ringState(&status, why)
	alone := status.Unreadable || reason == reasonNoSigner || reason == reasonNoRing
	return tenantReady{Status: state, Reason: reason, alone: alone}
}

// ringState returns the state of a ring, and the reason in words that anyone may read.
func ringState(status *rotation.TenantStatus, why purpose) (state, reason string) {
	can := status.CanVerify
	if why == forSign {
		can = status.CanSign
	}
	switch {
	case can && status.Fresh:
		return stateReady, ""
	case can:
		state = stateDegraded
	case why == forSign && status.Ready && status.Ring.Signer < 0:
		return stateNotReady, reasonNoSigner
	case why == forSign && status.Fresh:
		return stateNotReady, "the key that signs is not confirmed yet"
	default:
		state = stateNotReady
	}
	switch {
	case status.Fresh:
		reason = "the clock of this machine was set"
	case IsSealError(status.Err):
		reason = "what Redis holds cannot be opened"
	case errors.Is(status.Err, keystore.ErrUnavailable):
		reason = reasonAway
	case status.InDoubt:
		reason = reasonInDoubt
	case len(status.Ring.Keys) == 0:
		reason = reasonNoRing
	default:
		reason = reasonAway
	}
	return state, reason
}

// The reasons of a ring with which no instance can do better.
const (
	reasonNoSigner = "no key signs now"
	reasonNoRing   = "there is no ring in Redis"
)

// The reasons of all rings at once.
const (
	reasonAway    = "out of step with Redis"
	reasonInDoubt = "in doubt: Redis may have lost something, and others get the time to put it back"
)

// IsSealError reports whether an error says that a part of a ring cannot be opened.
func IsSealError(err error) bool {
	for _, sealed := range []error{rotation.ErrWrongKEK, rotation.ErrTampered, rotation.ErrNewer, rotation.ErrMalformed} {
		if errors.Is(err, sealed) {
			return true
		}
	}
	return false
}

// sourceReady returns the state of an issuer's keys, with the reason in words that anyone may read.
// answers says that the source can answer: one that a token has woken has old keys for a moment, and
// that token waits for new ones.
func sourceReady(status jwks.Status, answers bool) tenantReady {
	one := tenantReady{Status: stateReady}
	switch {
	case status.Asleep: // and its last attempt went well
		one.Reason = "asleep: the issuer is asked with the next token"
		return one
	case status.State == jwks.Fresh, status.State == jwks.Aging:
		return one
	case status.State == jwks.Expired && answers:
		one.Reason = "waking: the issuer is being asked"
		return one
	case status.State == jwks.Stale:
		one.Status, one.Reason = stateDegraded, "the issuer's keys are stale"
	case status.State == jwks.Cold:
		one.Status, one.Reason = stateNotReady, "the issuer has not answered yet"
	default:
		one.Status, one.Reason = stateNotReady, "the issuer's keys are too old"
	}
	if e := new(jwks.Error); status.Failures > 0 && errors.As(status.LastError, &e) {
		one.Reason += "; last failure: " + StepName(e.Step)
	}
	return one
}

// keyWarnings says which keys of an issuer are skipped or irregular: the first 16, and how many more.
func keyWarnings(status jwks.Status) (all []string) {
	const most = 16
	for _, k := range status.Skipped {
		all = append(all, "skipped "+k.String())
	}
	for _, k := range status.Irregular {
		all = append(all, "irregular "+k.String())
	}
	if more := len(all) - most; more > 0 {
		all = append(all[:most], fmt.Sprintf("and %d more", more))
	}
	return all
}

// StepName returns the step of a failed attempt to read an issuer's keys, in words.
func StepName(s jwks.Step) string {
	switch s {
	case jwks.StepDNS:
		return "DNS"
	case jwks.StepAddress:
		return "address refused"
	case jwks.StepTLS:
		return "TLS"
	case jwks.StepDiscovery:
		return "discovery mismatch"
	}
	return string(s)
}

// serveHealth answers that the server runs.
func serveHealth(w http.ResponseWriter, r *http.Request) {
	if onlyRead(w, r) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	}
}

// ready returns whether tokens can be verified, or signed. While the list of revocations cannot tell,
// no token can be verified.
func (s *generation) ready(why purpose) readiness {
	all := s.tenants.ready(why)
	if why == forSign {
		return all
	}
	all.Revocations = s.revoked.ready()
	switch r := all.Revocations; {
	case r == nil || r.Status == stateReady:
	case r.Status == stateNotReady:
		all.Status = stateNotReady
	case all.Status == stateReady:
		all.Status = stateDegraded
	}
	return all
}

// unnamed returns what everyone may read of r.
func (r readiness) unnamed() readiness {
	r.Tenants = nil
	if r.Revocations != nil {
		r.Revocations = &revocationsReady{Status: r.Revocations.Status}
	}
	return r
}

// serveReady answers whether tokens can be verified, or signed, with the names of tenants or without.
func (s *generation) serveReady(w http.ResponseWriter, r *http.Request, named bool) {
	if !onlyRead(w, r) {
		return
	}
	why := s.purpose
	if asked := r.URL.Query().Get("for"); asked != "" {
		why = purpose(asked)
	}
	cached := s.readiness[why]
	if cached == nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "for is verify or sign"})
		return
	}
	all := cached.get(s.cfg.Now(), func() readiness { return s.ready(why) })
	if tenant, asked := r.URL.Query()["tenant"]; asked {
		if one, known := all.Tenants[tenant[0]]; named && known {
			all = readiness{Status: one.Status, Tenants: map[string]tenantReady{tenant[0]: one}}
			all.add(one.Status)
		} else { // the names of tenants are for the admin listener alone
			answer(w, http.StatusNotFound, map[string]string{"error": "there is no such tenant here"})
			return
		}
	}
	if !named {
		all = all.unnamed()
	}
	if s.stopping.Load() {
		all.Status = stateStopping
	}
	status := http.StatusOK
	if all.Status == stateNotReady || all.Status == stateStopping {
		status = http.StatusServiceUnavailable
	}
	answer(w, status, all)
}
