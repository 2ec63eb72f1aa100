package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// The values of --revocations.
const (
	askRevocations    = "ask"    // under the KEK of the ring
	plainRevocations  = "plain"  // the list has no KEK
	ignoreRevocations = "ignore" // the ring is asked alone
)

func newRevocationsFlag() *option[string] {
	return &option[string]{value: askRevocations, kind: "HOW", shown: askRevocations, parse: func(s string) (string, error) {
		switch s {
		case askRevocations, plainRevocations, ignoreRevocations:
			return s, nil
		}
		return "", fmt.Errorf("want %s, %s or %s", askRevocations, plainRevocations, ignoreRevocations)
	}}
}

// What "verify" says of the list of revocations.
const (
	listAsked   = "asked"
	listMissing = "none"
	listIgnored = "ignored"
)

// A fleetList asks the list of revocations that is in the Redis of a ring. It implements
// [verifier.Revocations], which is asked about tokens alone that are good otherwise: so the list is
// opened for those only. It is used by one goroutine.
type fleetList struct {
	open func(use func(*revocations.List) error) error

	said       string // listAsked, listMissing or listIgnored; "" before
	entries    int
	unreadable int
	err        error // why the list cannot tell
}

// fleetListOf returns what asks the list in the Redis of s. ctx bounds the asking.
func (c *verifyCommand) fleetListOf(ctx context.Context, s *ringSession) *fleetList {
	f := new(fleetList)
	f.open = func(use func(*revocations.List) error) error {
		if c.revocations.value == ignoreRevocations {
			f.said = listIgnored
			return nil
		}
		has, err := hasList(ctx, s.store.client)
		switch {
		case err != nil:
			return listError(err)
		case !has:
			f.said = listMissing
			return nil
		}
		keks, realm := s.keks, s.realm
		if c.revocations.value == plainRevocations {
			keks, realm = nil, ""
		}
		return c.openList(ctx, s, keks, realm, use)
	}
	return f
}

// openList calls use with the list, once it can tell which tokens are revoked.
func (c *verifyCommand) openList(ctx context.Context, s *ringSession, keks *rotation.KEKs, realm string, use func(*revocations.List) error) error {
	list, err := revocations.Open(ctx, s.store.client, revocations.Config{
		KEKs: keks, Realm: realm, OtherRealms: s.otherRealms, Transient: true, Deadline: time.Second, Logger: discard(), Now: c.now,
	})
	if err != nil {
		return usagef("%s", errorText(err))
	}
	defer list.Close(context.WithoutCancel(ctx))
	stop := tellListWait(ctx, c.app, list)
	err = awaitListFor(ctx, 2*ringTime, list, func(s *revocations.Status) bool { return s.Ready })
	stop()
	if err != nil {
		return err
	}
	return use(list)
}

// Revoked implements [verifier.Revocations].
func (f *fleetList) Revoked(t *verifier.Token) (revoked bool, err error) {
	f.err = f.open(func(list *revocations.List) error {
		s := list.Status()
		f.said, f.entries, f.unreadable = listAsked, s.Entries, s.Unreadable
		var err error
		revoked, err = list.Revoked(t)
		return untold(err)
	})
	return revoked, f.err
}

// untold returns the error of a list that cannot tell, or nil. Exit code 1 would say that the token is bad,
// as listError does of a revocation that finds no room.
func untold(err error) error {
	if errors.Is(err, revocations.ErrFull) {
		return exitf(exitCannotTell, "the list of revocations cannot tell: the tenant has more than twice its share: revoke the whole tenant, or wait until revocations end")
	}
	if err != nil {
		return listError(err)
	}
	return nil
}

// text says what the list said of a good token.
func (f *fleetList) text() string {
	switch f.said {
	case listAsked:
		return fmt.Sprintf("no, says the list in this Redis, which holds %s", countOf(f.entries, "revocation"))
	case listMissing:
		return "not asked: this Redis has no list of revocations"
	}
	return "not asked: --revocations ignore"
}
