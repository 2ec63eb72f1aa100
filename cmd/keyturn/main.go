// Command keyturn signs, verifies and inspects JSON Web Tokens, makes and rotates the keys that sign
// them, and serves a small API that only good tokens open. "keyturn --help" says how.
package main

import (
	"context"
	"fmt"
	"os"
)

func main() {
	if err := noDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "keyturn: note:", err)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}
