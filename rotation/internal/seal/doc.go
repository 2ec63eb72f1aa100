// Package seal turns the records and facts of a ring into the bytes that a store holds, and back.
//
// Three keys protect them, each under the one before:
//
//	KEK           32 bytes that the instances of a service share; never in the store
//	  +- tenant key    32 random bytes, sealed under the KEK (AES-256-GCM)
//	  |    +- record      a key of the ring: the header in the open and authenticated,
//	  |                   the private key or secret sealed under the tenant key
//	  +- fact          in the open, with a MAC under a key from the KEK (HMAC-SHA-256)
//
// A new KEK rewraps one small tenant key for each tenant, and changes no record. A fact has a MAC
// from the KEK itself, since a revocation outlives the tenant keys.
//
// [OpenRing] opens all fields of a ring. A field that it cannot open is neither new data nor
// missing data: the caller cannot tell. docs/formats.md has the layout, byte for byte, with vectors.
package seal
