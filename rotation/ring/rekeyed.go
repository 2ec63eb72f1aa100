package ring

// A Rekeyed says under which KEKs a ring is sealed. KEKs are written as id and check value; the id
// is the one that the writer of a field gave its KEK.
type Rekeyed struct {
	Tenant  string // whose ring it is
	Primary string // the primary KEK of the process that reports
	Changed bool   // the ring was sealed again

	// Others are the fields that were under another KEK than Primary before, by that KEK, sorted.
	// If there are none, no other KEK is needed to read the ring.
	Others map[string][]string

	// OldKeys are the kids of the keys whose tenant key was made under another KEK, and of the secrets
	// that were accepted under one. A person who has that KEK and a dump of the store from before the
	// change has these keys. Those of the ring go with the next rotations, accepted ones at their date,
	// and all can be revoked. Keys that were revoked are left out.
	OldKeys []string
}
