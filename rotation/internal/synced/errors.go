package synced

import (
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// InTenant returns err with the tenant whose ring it is about.
func InTenant(tenant string, err error) error {
	return &ring.Error{Text: fmt.Sprintf("tenant %q", tenant), Err: err}
}

// errNotInSync is the reason if no better one is known.
var errNotInSync = errors.New("not in step with the store, or in doubt about it")

// Unavailable returns reason as a [keystore.ErrUnavailable], unless it is one. reason may be nil.
func Unavailable(reason error) error {
	if reason == nil {
		reason = errNotInSync
	}
	if errors.Is(reason, keystore.ErrUnavailable) {
		return reason
	}
	return &ring.Error{Kind: keystore.ErrUnavailable, Err: reason}
}
