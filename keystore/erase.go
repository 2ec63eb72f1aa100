//go:build !goexperiment.runtimesecret

package keystore

// erasing calls f, which handles a secret. Without the runtime's help, what f leaves in registers,
// on the stack and in garbage stays there until something else is written over it.
func erasing(f func()) { f() }
