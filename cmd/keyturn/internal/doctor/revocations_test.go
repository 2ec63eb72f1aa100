package doctor

import "testing"

func TestCheckList(t *testing.T) {
	sealed := &Facts{HasKEK: true}
	if got := sealed.CheckList(&List{}); len(got) > 0 {
		t.Errorf("without a list: %+v", got)
	}
	one := []string{"k1"}
	want(t, sealed.CheckList(&List{Entries: 2, KeyNames: one}), OK, "2 revocations")
	want(t, sealed.CheckList(&List{Err: "Redis is away"}), Unknown, "Redis is away")
	want(t, sealed.CheckList(&List{Err: "load of e0001", Broken: true}), Bad, "load of e0001", "is not keyturn's")
	want(t, (&Facts{}).CheckList(&List{Forged: 1}), Unknown, "give --kek-file")
	want(t, sealed.CheckList(&List{Forged: 1}), Bad, "another KEK")
	want(t, sealed.CheckList(&List{KeyNames: one, Forged: 3}), Bad, "3 values", "Someone writes to Redis")
	want(t, sealed.CheckList(&List{KeyNames: one, Unreadable: 3, In: []string{"e0001", "e0002"}}), Bad, "3 groups", "(e0001, e0002 and others)", "are accepted", "The digest keys of revocations")
	want(t, sealed.CheckList(&List{Unreadable: 1, In: []string{"e0001"}}), Bad, "1 group of", "(e0001)")
	want(t, sealed.CheckList(&List{KeyNames: one, Entries: 900_000}), Warn, "four fifths full")
	want(t, sealed.CheckList(&List{KeyNames: []string{"k1", "k2"}}), Warn, "2 digest keys")
}
