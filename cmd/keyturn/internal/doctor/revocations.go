package doctor

import "strings"

// A List is the state of a list of revocations, as it was read from Redis.
type List struct {
	Entries    int
	KeyNames   []string // of its digest keys; none: there is no list, or none of them can be opened
	Forged     uint64   // values that are not authentic, or not under this KEK
	Unreadable int      // groups with entries that cannot be read: see revocations.Status
	In         []string // the names of some of them
	Err        string   // why it cannot be read, or ""
	Broken     bool     // that is a key which is nothing that keyturn writes
}

// roomyEntries is how many entries an instance holds by default: see revocations.Config.
const roomyEntries = 1 << 20

// CheckList returns the findings about the list of revocations: none without a list.
func (f *Facts) CheckList(l *List) []Finding {
	const check = "revocations"
	switch {
	case l.Broken:
		return []Finding{found(check, Bad, `wait for 10 s, in which an instance mends it that holds the list; if it stays: docs/operations.md, "A group of the list is not keyturn's"`,
			"a key of the list of revocations is nothing that keyturn writes, so instances cannot tell and answer 503: %s", l.Err)}
	case l.Err != "":
		return []Finding{found(check, Unknown, "mend that first; then run doctor again", "the list of revocations cannot be read: %s", l.Err)}
	case len(l.KeyNames) == 0 && l.Forged > 0 && !f.HasKEK:
		return []Finding{found(check, Unknown, "give --kek-file, or set KEYTURN_KEK_FILE", "without a KEK the list of revocations cannot be opened")}
	case len(l.KeyNames) == 0 && l.Forged > 0:
		return []Finding{found(check, Bad, `give the KEK that the service has; if it has none: docs/operations.md, "The digest keys of revocations"`,
			"the list of revocations is under another KEK, or under none")}
	case len(l.KeyNames) == 0 && l.Entries == 0 && l.Unreadable == 0:
		return nil
	}
	all := []Finding{found(check, OK, "", "%s", count(l.Entries, "revocation"))}
	if l.Unreadable > 0 {
		all = append(all, found(check, Bad, `run doctor of the newest keyturn in use; if it says the same: docs/operations.md, "The digest keys of revocations"`,
			"%s of the list of revocations (%s) cannot be read in full, so the tokens that they revoke are accepted: their digest key is gone, or a newer version wrote them",
			count(l.Unreadable, "group"), someOf(l.In, l.Unreadable)))
	}
	if l.Forged > 0 {
		all = append(all, found(check, Bad, `docs/operations.md, "Someone writes to Redis"`, "%s of the list of revocations cannot be authenticated: a person writes to it", count(int(min(l.Forged, 1<<30)), "value")))
	}
	if l.Entries > roomyEntries/10*8 {
		all = append(all, found(check, Warn, `lower max_token_ttl, or revoke a whole tenant; docs/operations.md, "A revocation is refused"`,
			"the list is four fifths full: an instance takes %d by default", roomyEntries))
	}
	if len(l.KeyNames) > 1 {
		all = append(all, found(check, Warn, "nothing, if two parts of the fleet began apart: each makes every check slower, and at most four can be", "the list has %d digest keys", len(l.KeyNames)))
	}
	return all
}

// someOf lists names of n things, and says if there are more.
func someOf(names []string, n int) string {
	text := strings.Join(names, ", ")
	if n > len(names) {
		text += " and others"
	}
	return text
}
