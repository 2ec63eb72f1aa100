// Package seal turns the records and facts of a ring into bytes that a store can hold, and back.
// The store is not trusted: it may read, change, move, remove or replay any field.
//
//	KEK                        32 bytes, shared by the instances, never in the store
//	 |
//	 +-- wraps --> tenant key  tk:<id>   32 random bytes                     a box
//	 |                 |
//	 |                 +-- seals --> record  k:<kid>
//	 |                                 header: times, policy, public key     readable, authenticated
//	 |                                 private key or secret                 a box
//	 |
//	 +-- MACs ---> fact        x:<kid> a: f: r: w: dead gone                 readable, HMAC-SHA-256
//	 +-- MACs ---> head        the newest seq, and how many changes          readable, HMAC-SHA-256
//	 +-- MACs ---> Ack         what an instance has read of a bucket         readable, HMAC-SHA-256
//	 +-- MACs ---> Entry       of the log, with the facts that end trust     readable, HMAC-SHA-256
//
// A box is AES-256-GCM with a commitment to its key. Each use of the KEK has a key of its own,
// derived by HKDF from the KEK, the use and the operator's realm: see [KEKs.In]. The authenticated
// bytes of a field include its place (tenant, kid, kind), so a field opens only in its own place.
//
// A new KEK rewraps one small tenant key for each tenant, and no record changes. A fact is under
// the KEK itself, since a revocation must stay readable when the tenant key was destroyed. A sealer
// of a fact, head or entry names the KEK: all instances seal a ring under the same one, which need
// not be the primary of each.
//
// [OpenRing] opens all fields of a ring. A field that cannot be opened counts neither as new data
// nor as missing data. [Replaceable] says over which of these an instance may write its own. The
// bytes cannot show that a field was removed or replayed: package rotation compares them with the
// copy that it holds.
//
// docs/formats.md has the layout byte by byte, and testdata/vectors.json examples of it.
package seal
