package jwt

import "testing"

func TestMembersOfOtherValues(t *testing.T) {
	for _, text := range []string{"", "null", "[]", `"a"`, "1", "{}"} {
		for name, value := range Members([]byte(text)) {
			t.Errorf("Members(%q) yields %q: %s", text, name, value)
		}
	}
}

func TestMembersStopsWithItsCaller(t *testing.T) {
	n := 0
	for range Members([]byte(`{"a":1,"b":2}`)) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("Members yielded %d members, want 1", n)
	}
}

// Writing a token walks over its claims, and must not allocate.
func TestMembersAllocsNothing(t *testing.T) {
	object := []byte(`{"iss":"https://a-rather-long-name.example","aud":["api","a-rather-long-name-of-an-audience"],"exp":1800000000,"x":{"y":[1,{}]}}`)
	allocs := testing.AllocsPerRun(100, func() {
		for name, value := range Members(object) {
			if c := ClaimNamed(string(name)); !c.Accepts(value) || FoldsToClaim(string(name)) != Unregistered {
				t.Errorf("%s does not accept %s", c, value)
			}
		}
	})
	if allocs != 0 && !raceEnabled {
		t.Errorf("%v allocations, want 0", allocs)
	}
}
