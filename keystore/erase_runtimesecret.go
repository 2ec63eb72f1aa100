//go:build goexperiment.runtimesecret

package keystore

import "runtime/secret"

// erasing calls f, which handles a secret. The runtime then erases the registers and the stack that
// f used, and the memory that f allocated as soon as the garbage collector finds it unreachable.
func erasing(f func()) { secret.Do(f) }
