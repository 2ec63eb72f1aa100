// Package bench holds keyturn's own benchmarks, which run from the root of the
// repository:
//
//	go test -bench . -run '^$' ./bench
//
// Module bench/compare has them side by side with other libraries.
package bench
