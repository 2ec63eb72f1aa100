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
	secret := []byte(strings.Repeat("x", 32)) // a real one comes from openssl rand
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

// A row is a key in a table of a database, or in a file.
type row struct {
	tenant, kid string
	secret      []byte
}

// A tableStore is a store for keys in a table: a [keystore.Static] and a loader. The
// Static answers look-ups. It keeps each *Key while its row stays the same, and
// withdraws it after the row is deleted.
type tableStore struct {
	*keystore.Static
	read func() ([]row, error)
}

// Load reads the table. Call it at the start, and whenever the table may have changed.
// After an error the store keeps the keys that it has.
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

// A store for keys from a database: a Static and a loader.
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

	table = table[1:] // the first row is deleted
	if err := store.Load(); err != nil {
		panic(err)
	}
	_, err = store.Lookup(keystore.ID{Tenant: "acme", KID: "1"}, keystore.HS256)
	fmt.Println(err)
	fmt.Println("still usable:", first[0].Usable(time.Now()))
	// Output:
	// [key "acme"/"1" (HS256)] <nil>
	// keystore: key not found
	// still usable: false
}
