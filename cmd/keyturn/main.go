// Command keyturn signs JSON Web Tokens, verifies and inspects them, makes and
// turns the keys that sign them, and serves a small API that only a good token
// opens. "keyturn --help" says how.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}
