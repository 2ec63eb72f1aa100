package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"strings"
	"testing"
)

// Keys of RFC 7515, appendix A.3, and RFC 8037, appendix A.
const (
	ecKey = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	edKey = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	edOwn = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`
)

func TestPublicKey(t *testing.T) {
	if key, err := PublicKey([]byte(ecKey)); err != nil {
		t.Error(err)
	} else if _, ok := key.(*ecdsa.PublicKey); !ok {
		t.Errorf("an EC key became a %T", key)
	}
	if key, err := PublicKey([]byte(edKey)); err != nil {
		t.Error(err)
	} else if _, ok := key.(ed25519.PublicKey); !ok {
		t.Errorf("an OKP key became a %T", key)
	}
	key, err := PublicKey([]byte(`{"kty":"RSA","n":"` + strings.Repeat("q", 342) + `","e":"AQAB"}`))
	if err != nil {
		t.Fatal(err)
	}
	if rsaKey, ok := key.(*rsa.PublicKey); !ok || rsaKey.E != 65537 {
		t.Errorf("an RSA key became %v", key)
	}
}

func TestOnlyPublicKeysAreMade(t *testing.T) {
	for name, doc := range map[string]string{
		"a private key": edOwn,
		"a secret":      `{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}`,
		"no JSON":       `hunter2`,
		"a bad member":  `{"kty":"OKP","crv":"Ed25519","x":"hunter2!"}`,
		"a set":         `{"keys":[` + ecKey + `]}`,
		"nothing":       ``,
	} {
		key, err := PublicKey([]byte(doc))
		if err == nil || key != nil {
			t.Errorf("%s: PublicKey = %v, %v, want an error", name, key, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes the JWK: %v", name, err)
		}
	}
}
