// Package jwt is what reading and writing JSON Web Tokens have in common: strict
// JSON, the registered names, and dates.
//
// It has two halves, because the two sides know different things of a text.
//
//   - A reader knows nothing of the text that it got. [Scanner] checks it and
//     splits it into members, and [String], [EachString] and [NumericDate] read
//     the values. These take strings, since a reader keeps the payload as one.
//   - A writer has a text that an encoder has just made. [Members] walks over its
//     members without checking it again, and [Claim.Accepts] checks the type of a
//     registered claim. These take bytes, since a writer appends to a buffer.
//
// Both halves share [Claim], [FoldsToClaim] and [NumericDate], so that a writer and
// a reader judge names and dates alike.
//
// The package imports the standard library only.
package jwt
