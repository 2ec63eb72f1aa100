package middleware

import (
	"slices"
	"testing"
)

// The plan of the zero Identity is what would be made of it.
func TestDefaultPlan(t *testing.T) {
	zero, err1 := Identity{}.plan()
	same, err2 := Identity{Prefix: "X-Auth-"}.plan()
	if err1 != nil || err2 != nil || zero.folded != same.folded || !slices.Equal(zero.names, same.names) || len(same.claims) != 0 {
		t.Errorf("plan = %+v, %v; want %+v, %v", zero, err1, same, err2)
	}
}
