//go:build goexperiment.runtimesecret && (amd64 || arm64)

package keystore_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keystore"
)

// With the runtime's help, nothing of a plain secret is left in the memory of the process once the
// caller has cleared the slice. Without it, the pads of HMAC stay there as garbage.
func TestSecretIsErased(t *testing.T) {
	secret := make([]byte, 32)
	rand.Read(secret)
	traces := tracesOf(secret)
	k, err := keystore.NewSecret(acme1, keystore.HS256, secret)
	if err != nil {
		t.Fatal(err)
	}
	k.Verify([]byte("m"), nil)
	clear(secret)
	for range 3 {
		runtime.GC()
	}
	eachPart(t, func(part []byte) {
		for name := range traces.in(part) {
			t.Errorf("%s is still in memory", name)
		}
	})
	runtime.KeepAlive(k)
}

// eachPart calls visit with the memory that this process can write to, in parts.
func eachPart(t *testing.T, visit func(part []byte)) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	const overlap = 64
	part, total := make([]byte, 1<<20), 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "rw") {
			continue
		}
		for ; from < to; from += int64(len(part) - overlap) {
			n, _ := mem.ReadAt(part[:min(int64(len(part)), to-from)], from)
			total += n
			if n > 0 && !bytes.Equal(part[:n], make([]byte, n)) {
				visit(part[:n])
			}
		}
	}
	if total < 1<<20 {
		t.Errorf("only %d bytes of memory could be read", total)
	}
}
