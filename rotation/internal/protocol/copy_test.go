package protocol

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/rotation/ring"
)

// TestNewCopyChangesNothing: the records that NewCopy sorts, and of which it drops one, stay as
// they are for the caller.
func TestNewCopyChangesNothing(t *testing.T) {
	one, two, three := key("k1", 1, 0, 0), key("k2", 2, 10, 100), key("k3", 3, 20, 200)
	c := Copy{Revived: roomy([]string{"k0"}), Plan: &ring.Plan{}}
	c.Records = roomy([]Record{{Record: &three}, {Record: &one}, {Record: &two}})
	c.Facts.Collect(0, sec(0))
	before := whole(&c)
	made := NewCopy(c)
	if err := unchanged("NewCopy", before, &c); err != nil {
		t.Error(err)
	}
	if got, want := contents(made), "[k2 k3 collected until 2030-01-01 00:00:00 +0000 UTC]"; got != want {
		t.Errorf("it holds %s, want %s", got, want)
	}
	if want := []string{"k0", "k1"}; !slices.Equal(made.Revived, want) {
		t.Errorf("revived %q, want %q", made.Revived, want)
	}
}
