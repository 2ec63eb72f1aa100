package ring_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation/ring"
)

// TestErrors: the text of each error, and the errors that it is.
func TestErrors(t *testing.T) {
	bad := errors.New("bad")
	unreadable := &ring.UnreadableError{Tenant: "acme", Fields: 5, Failed: map[string]error{"k:a": bad, "k:b": bad, "k:c": bad, "k:d": io.EOF}}
	for _, tt := range []struct {
		err  error
		text string
		is   []error
	}{
		{&ring.Error{Text: "no KEK"}, "rotation: no KEK", nil},
		{&ring.Error{Kind: keystore.ErrUnavailable, Text: "fenced", Err: bad, Also: io.EOF}, keystore.ErrUnavailable.Error() + ": fenced: bad (EOF)",
			[]error{keystore.ErrUnavailable, bad}},
		{unreadable, `rotation: 4 of 5 fields of tenant "acme" cannot be opened; "k:a": bad; "k:b": bad; "k:c": bad; and so on`, []error{bad, io.EOF}},
		{&ring.RefusedError{Tenant: "acme", Reason: "no"}, `rotation: refused: tenant "acme": no`, []error{ring.ErrRefused}},
		{&ring.RefusedError{Tenant: "acme", KID: "k", Reason: "no", From: at(.5).In(time.FixedZone("", 3600))},
			`rotation: refused: tenant "acme", key "k": no; it may be from 2030-01-01T00:00:00.500Z on`, []error{ring.ErrRefused}},
		{&ring.MissingError{Tenant: "acme"}, `rotation: tenant "acme" has no ring in the store: create one: ` + keystore.ErrNotFound.Error(), []error{keystore.ErrNotFound}},
		{&ring.MissingError{Tenant: "acme", KID: "k"}, `rotation: tenant "acme" has no key "k": ` + keystore.ErrNotFound.Error(), []error{keystore.ErrNotFound}},
	} {
		if got := tt.err.Error(); got != tt.text {
			t.Errorf("%q\nwant %q", got, tt.text)
		}
		for _, target := range tt.is {
			if !errors.Is(tt.err, target) {
				t.Errorf("%v is not %v", tt.err, target)
			}
		}
	}
	if errors.Is(&ring.Error{Also: io.EOF}, io.EOF) {
		t.Error("an Error wraps Also")
	}
}
