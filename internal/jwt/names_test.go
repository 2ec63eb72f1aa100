package jwt

import (
	"strings"
	"testing"
)

var claims = []Claim{Iss, Sub, Aud, Exp, Nbf, Iat, Jti}

func TestClaimNamed(t *testing.T) {
	for _, c := range claims {
		if got := ClaimNamed(c.String()); got != c {
			t.Errorf("ClaimNamed(%q) = %d, want %d", c.String(), got, c)
		}
	}
	for _, name := range []string{"", "Exp", "EXP", "ex", "expp", "iſs", "scope"} {
		if got := ClaimNamed(name); got != Unregistered {
			t.Errorf("ClaimNamed(%q) = %v, want Unregistered", name, got)
		}
	}
	if got := Unregistered.String(); got != "" {
		t.Errorf("Unregistered.String() = %q", got)
	}
}

// spellings returns every spelling of name that folds to it, and name itself.
func spellings(name string) []string {
	all := []string{""}
	for _, r := range name {
		variants := []string{string(r), strings.ToUpper(string(r))}
		switch r {
		case 's':
			variants = append(variants, "ſ")
		case 'k':
			variants = append(variants, "\u212a") // the Kelvin sign
		case 'S':
			variants = append(variants, "s", "ſ")
		}
		var longer []string
		for _, prefix := range all {
			for _, v := range variants {
				longer = append(longer, prefix+v)
			}
		}
		all = longer
	}
	return all
}

func TestFoldsToClaim(t *testing.T) {
	for _, c := range claims {
		for _, name := range spellings(c.String()) {
			want := c
			if name == c.String() {
				want = Unregistered
			}
			if got := FoldsToClaim(name); got != want {
				t.Errorf("FoldsToClaim(%q) = %v, want %v", name, got, want)
			}
		}
	}
	for _, name := range []string{"", "EX", "EXPP", "E\u00d7P", "Issuer", "AUDIENCE", "#xp", "\u0131at"} {
		if got := FoldsToClaim(name); got != Unregistered {
			t.Errorf("FoldsToClaim(%q) = %v, want Unregistered", name, got)
		}
	}
}

func TestFoldsToHeader(t *testing.T) {
	for _, n := range headerNames {
		for _, name := range spellings(n) {
			if got, want := FoldsToHeader(name), name != n; got != want || IsHeader(name) == want {
				t.Errorf("FoldsToHeader(%q) = %v, want %v", name, got, want)
			}
		}
	}
	for _, name := range []string{"", "AL", "ALGO", "EPK", "X5T#S", "Authorization"} {
		if FoldsToHeader(name) || IsHeader(name) {
			t.Errorf("FoldsToHeader or IsHeader(%q) = true", name)
		}
	}
}
