package main

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/doctor"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// list looks at the list of revocations, if there is one. It changes nothing.
func (l *look) list(ctx context.Context) {
	var facts doctor.List
	var unread error
	if !l.hasList(ctx) { // to open one that is not there would begin its log
		return
	}
	list, err := revocations.Open(ctx, l.session.store.client, revocations.Config{
		KEKs: l.session.keks, Realm: l.listRealm(), Transient: true, Logger: discard(), Now: l.now,
	})
	if err == nil {
		defer list.Close(context.WithoutCancel(ctx))
		err = awaitList(ctx, list, func(s *revocations.Status) bool { return !s.Read.IsZero() })
		status := list.Status()
		unread = status.Unread
		facts = doctor.List{Entries: status.Entries, KeyNames: status.KeyNames, Forged: status.Alarms.Forged, Unreadable: status.Unreadable, In: status.UnreadableIn}
	}
	if err != nil && (facts.Forged == 0 || len(facts.KeyNames) > 0) {
		facts.Err = printable(errorText(err), false)
		if errors.Is(unread, rediskeys.ErrWrongType) || errors.Is(unread, rediskeys.ErrTooLarge) {
			facts.Err, facts.Broken = printable(errorText(unread), false), true
		}
	}
	l.findings = append(l.findings, l.facts.CheckList(&facts)...)
}

// hasList reports whether Redis has a group of a list, or cannot say so. A list may lack its digest keys.
func (l *look) hasList(ctx context.Context) bool {
	has, err := hasList(ctx, l.session.store.client)
	return has || err != nil
}

// listRealm is the realm of the list, which without a KEK has none.
func (l *look) listRealm() string {
	if l.session.keks == nil {
		return ""
	}
	return l.session.realm
}
