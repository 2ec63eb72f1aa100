// Package codec encodes and authenticates what a revocation list has in a store: each value is a
// header, fields of fixed size, and an HMAC-SHA-256 under a key that is derived from a digest key.
//
//	digest key (32 random bytes)
//	  |- id       names it in entries
//	  |- digest   the HMAC key of the digests that stand for names
//	  |- entry    the HMAC key of entries, and of their fingerprints
//	  |- log      of entries of the log
//	  '- ack      of acknowledgements
//
// docs/formats.md has the layout of each value, with vectors.
package codec
