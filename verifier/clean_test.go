package verifier_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/verifier"
)

// TestNoteCleanIsOfOneVersion: marks are clean at the version that was noted last, and new marks at none.
func TestNoteCleanIsOfOneVersion(t *testing.T) {
	var m verifier.Marks
	for _, version := range []uintptr{0, 1, ^uintptr(0)} {
		if m.CleanAt(version) {
			t.Errorf("new marks are clean at version %d", version)
		}
	}
	m.NoteClean(7)
	m.NoteClean(8)
	if m.CleanAt(7) || !m.CleanAt(8) || m.CleanAt(9) {
		t.Error("the note is of another version")
	}
}

// TestRevokedAfterHits: a token that hits have found clean is refused once it is revoked in any way, also
// if the list has as many entries as before, or the entry was there already.
func TestRevokedAfterHits(t *testing.T) {
	list := verifier.NewRevocationList(100)
	w := newTwinWith(t, list, acme(t))
	token := sign(goodHeader, with(`"jti":"7","sid":"s"`))
	early, late := time.Unix(nowUnix-1000, 0), time.Unix(nowUnix+1000, 0)
	w.hit("the list is empty", token)
	for _, step := range []struct {
		what   string
		revoke func() error
		undo   func() bool
	}{
		{"token", func() error { return list.RevokeToken("acme", "7", late) }, func() bool { return list.RemoveToken("acme", "7") }},
		{"session", func() error { return list.RevokeSession("acme", "s", late) }, func() bool { return list.RemoveSession("acme", "s") }},
		{"another subject goes for its own", func() error {
			list.RemoveSubject("acme", "other")
			return list.RevokeSubject("acme", "ann", late)
		}, func() bool { return list.RemoveSubject("acme", "ann") }},
		{"tenant, later than before", func() error { return list.RevokeTenant("acme", late) }, func() bool { return list.RemoveTenant("acme") }},
	} {
		if err := errors.Join(list.RevokeSubject("acme", "other", late), list.RevokeTenant("acme", early)); err != nil {
			t.Fatal(err)
		}
		w.hit("before: "+step.what, token)
		w.verify("before: "+step.what, token, nil)
		if err := step.revoke(); err != nil {
			t.Fatal(err)
		}
		w.verify(step.what, token, verifier.ErrRevoked)
		if !step.undo() {
			t.Errorf("%s: it was not on the list", step.what)
		}
		w.verify("taken back: "+step.what, token, nil)
	}
}

// A memoryMarker gives the same marks for each token, with the note that they have by now.
type memoryMarker struct {
	marks   verifier.Marks
	revoked bool
}

func (m *memoryMarker) Revoked(*verifier.Token) (bool, error) { return m.revoked, nil }
func (m *memoryMarker) Marks(*verifier.Token) verifier.Marks  { return m.marks }
func (m *memoryMarker) RevokedMarks(marks *verifier.Marks, _ time.Time) (bool, error) {
	return m.revoked && !marks.CleanAt(1), nil
}

// TestNewMarksAreNotClean: a note in the marks that a Marker gives for a token is of another token.
func TestNewMarksAreNotClean(t *testing.T) {
	m := &memoryMarker{revoked: true}
	m.marks.NoteClean(1)
	v, err := verifier.New(verifier.Config{Tenants: []verifier.Tenant{acme(t)}, Revocations: m, Now: func() time.Time { return time.Unix(nowUnix, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), sign(goodHeader, with(`"jti":"7"`))); !errors.Is(err, verifier.ErrRevoked) {
		t.Errorf("a revoked token: %v", err)
	}
}
