package keystore_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keystore"
)

func Example() {
	secret := []byte(strings.Repeat("x", 32)) // from openssl rand, rather
	id := keystore.ID{Tenant: "acme", KID: "2026-11"}
	key, err := keystore.NewSecret(id, keystore.HS256, secret)
	if err != nil {
		panic(err)
	}
	keys, err := keystore.NewStatic(key)
	if err != nil {
		panic(err)
	}

	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("header.payload"))
	found, err := keys.Lookup(id, keystore.HS256)
	fmt.Println(found, err)
	fmt.Println(found[0].Verify([]byte("header.payload"), mac.Sum(nil)))

	_, err = keys.Lookup(keystore.ID{Tenant: "globex", KID: "2026-11"}, keystore.HS256)
	fmt.Println(errors.Is(err, keystore.ErrNotFound))
	// Output:
	// [key "acme"/"2026-11" (HS256)] <nil>
	// true
	// true
}

// A row is what some table or file has about a key.
type row struct {
	tenant, kid string
	secret      []byte
}

// A tableStore is a store of one's own: a [keystore.Static] and a loader. The
// Static answers lookups, keeps each *Key for as long as its row stays the
// same, and withdraws it when the row is gone.
type tableStore struct {
	*keystore.Static
	read func() ([]row, error)
}

// Load reads the table. Call it at the start, and whenever the table may have
// changed; after an error the store goes on with the keys that it has.
func (s *tableStore) Load() error {
	rows, err := s.read()
	if err != nil {
		return err
	}
	var keys []*keystore.Key
	for _, r := range rows {
		k, err := keystore.NewSecret(keystore.ID{Tenant: r.tenant, KID: r.kid}, keystore.HS256, r.secret)
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	return s.Replace(keys...)
}

// A custom store is usually a Static and a loader.
func ExampleStatic_loader() {
	table := []row{
		{"acme", "1", []byte(strings.Repeat("a", 32))},
		{"acme", "2", []byte(strings.Repeat("b", 32))},
	}
	empty, err := keystore.NewStatic()
	if err != nil {
		panic(err)
	}
	store := &tableStore{Static: empty, read: func() ([]row, error) { return table, nil }}
	if err := store.Load(); err != nil {
		panic(err)
	}
	first, err := store.Lookup(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256)
	fmt.Println(first, err)

	table = table[1:] // somebody deletes the first row
	if err := store.Load(); err != nil {
		panic(err)
	}
	_, err = store.Lookup(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256)
	fmt.Println(err)
	fmt.Println("still vouches for tokens:", first[0].Usable(time.Now()))
	// Output:
	// [key "acme"/"1" (HS256)] <nil>
	// keystore: key not found
	// still vouches for tokens: false
}
