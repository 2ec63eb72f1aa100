package jwks

import (
	"encoding/base64"
	"math/big"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var b64 = base64.RawURLEncoding.EncodeToString

// Keys of RFC 7515, appendix A.3, and RFC 8037, appendix A.2.
const (
	p256X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	p256Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	edX   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
)

// odd2048 is an odd number of 2048 bits.
var odd2048 = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(12345))

// readOne reads the only key of a set.
func readOne(t *testing.T, key string) jwk {
	t.Helper()
	keys, err := splitSet([]byte(`{"keys":[`+key+`]}`), minElements)
	if err != nil || len(keys) != 1 {
		t.Fatalf("splitSet = %d keys, %v", len(keys), err)
	}
	return readJWK(keys[0])
}
