package revocations

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier/revocations/internal/codec"
)

// A Rekeyed says how the digest keys of a list are sealed.
type Rekeyed struct {
	Keys   int                 // how many digest keys there are; 0 means that there is no list
	Others map[string][]string // the names of those that were under another KEK than the first, by KEK
	Sealed int                 // how many of them were sealed again
}

// Rekey seals the digest keys of the list in Redis under the first of cfg.KEKs, so that no older KEK is
// needed to read the list. Entries stay as they are: they depend on the digest keys alone. With look it
// changes nothing. cfg is that of [Open].
//
// All instances must have the new KEK before, if not as the first: one without it that starts later
// cannot open the list. Those that run hold the digest keys already, and take new KEKs by [List.SetKEKs].
func Rekey(ctx context.Context, client redis.UniversalClient, cfg Config, look bool) (Rekeyed, error) {
	store, err := storeOf(client, cfg)
	if err != nil {
		return Rekeyed{}, err
	}
	cfg.Transient = true
	l, err := newList(store, cfg)
	if err != nil {
		return Rekeyed{}, err
	}
	return l.rekey(ctx, look)
}

func (l *List) rekey(ctx context.Context, look bool) (Rekeyed, error) {
	for range maxTries {
		s := l.load(ctx, []string{keysGroup})[0]
		if s.Err != nil {
			return Rekeyed{}, fmt.Errorf("revocations: %w", s.Err)
		}
		report, old, err := l.oldKeys(s.Fields)
		if err != nil || look || len(old) == 0 {
			return report, err
		}
		code, err := l.writeKeys(ctx, s.Digest, old, nil)
		switch {
		case err != nil && code == rotation.NotMade:
			return report, fmt.Errorf("revocations: %w", err)
		case err == nil && code == rotation.Committed:
			report.Sealed = len(old)
			return report, nil
		}
	}
	return Rekeyed{}, errBusy
}

// oldKeys returns the digest keys among fields that are under another KEK than the first.
func (l *List) oldKeys(fields map[string][]byte) (report Rekeyed, old codec.Keys, err error) {
	report.Others = make(map[string][]string)
	for field, value := range fields {
		k, other, err := codec.OpenKey(*l.box.Load(), field, value)
		switch {
		case notAKey(err):
			continue // a holder puts back the key
		case err != nil:
			return report, nil, fmt.Errorf("%w: field %.64q: %w", ErrDigestKeys, field, err)
		}
		if report.Keys++; other != "" {
			old = append(old, k)
			report.Others[other] = append(report.Others[other], field)
		}
	}
	for _, names := range report.Others {
		slices.Sort(names)
	}
	return report, old, nil
}

// notAKey reports whether err, of a value that cannot be opened, says that no keyturn wrote the value.
func notAKey(err error) bool {
	return errors.Is(err, rotation.ErrTampered) || errors.Is(err, rotation.ErrMalformed) || codec.Garbage(err)
}
