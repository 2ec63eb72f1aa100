// Package bench holds keyturn's own benchmarks. Run them from the root of the repository:
//
//	go test -bench . -run '^$' ./bench
//
// Module bench/compare measures the same beside other libraries.
package bench
