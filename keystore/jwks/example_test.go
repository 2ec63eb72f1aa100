package jwks_test

import (
	"fmt"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
)

func Example() {
	set := []byte(`{"keys":[
		{"kty":"EC","crv":"P-256","kid":"2026-11","alg":"ES256","use":"sig",
		 "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
		{"kty":"OKP","crv":"X25519","kid":"ecdh","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
		{"kty":"oct","kid":"oops","k":"c2VjcmV0LCBub3QgYW55IG1vcmUuLi4uLi4uLi4u"}
	]}`)
	keys, skipped, err := jwks.Parse("acme", set)
	if err != nil {
		panic(err)
	}
	for _, s := range skipped {
		fmt.Println("skipped", s)
	}
	store, err := keystore.NewStatic(keys...)
	if err != nil {
		panic(err)
	}
	fmt.Println(store.Lookup(keystore.ID{Tenant: "acme", KID: "2026-11"}, keystore.ES256))
	// Output:
	// skipped key 1 ("ecdh"): unsupported crv "X25519": only Ed25519 of the OKP curves
	// skipped key 2 ("oops"): ALARM: holds a shared secret, with which whoever reads the set can sign
	// [key "acme"/"2026-11" (ES256)] <nil>
}
