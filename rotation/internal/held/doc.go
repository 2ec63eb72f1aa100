// Package held has the ring that an instance holds in memory: what package protocol decides on,
// together with the sealed bytes and the keys of its records. It opens what the store has, and
// turns the protocol's proposals, which have no bytes, into fields for the store.
//
// Nothing here talks to the store or reads a clock.
package held
