package verifier_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// must is for examples. A program handles the error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Two tenants, each with a secret of its own. The iss of a token selects the tenant.
func Example() {
	acmeID := keystore.ID{Tenant: "acme", KID: "2026-11"}
	globexID := keystore.ID{Tenant: "globex", KID: "2026-11"}
	acmeSecret := []byte("32 bytes of acme, kept elsewhere")
	globexSecret := []byte("32 bytes of globex, also elsewhere")
	keys := must(keystore.NewStatic(
		must(keystore.NewSecret(acmeID, keystore.HS256, acmeSecret)),
		must(keystore.NewSecret(globexID, keystore.HS256, globexSecret)),
	))
	algorithms := []keystore.Algorithm{keystore.HS256}
	v := must(verifier.New(verifier.Config{Tenants: []verifier.Tenant{
		{ID: "acme", Keys: keys, Algorithms: algorithms, Issuer: "https://acme.example", Audiences: []string{"api"}},
		{ID: "globex", Keys: keys, Algorithms: algorithms, Issuer: "https://globex.example", Audiences: []string{"api"}},
	}}))

	// The issuer of acme signs a token.
	ctx := context.Background()
	signer := must(rotation.NewStaticSigner(acmeID, keystore.HS256, acmeSecret, rotation.SignerConfig{}))
	token := must(signer.Sign(ctx, "acme", map[string]any{"iss": "https://acme.example", "aud": "api", "sub": "ann"}))

	t, err := v.Verify(ctx, token)
	fmt.Println(t.Tenant(), t.Subject(), err)

	// The service knows from elsewhere that the request is for globex.
	_, err = v.VerifyTenant(ctx, "globex", token)
	fmt.Println(err)
	fmt.Println("401:", errors.Is(err, verifier.ErrInvalid), "503:", errors.Is(err, verifier.ErrUnavailable))
	// Output:
	// acme ann <nil>
	// verifier: tenant "globex": wrong issuer: want "https://globex.example": claim "iss"
	// 401: true 503: false
}

func ExampleClaims() {
	v, sign := exampleVerifier()
	t := must(v.Verify(context.Background(), sign(map[string]any{"sub": "ann", "roles": []string{"admin", "dev"}})))

	type claims struct {
		Subject string   `json:"sub"`
		Roles   []string `json:"roles"`
	}
	c := must(verifier.Claims[claims](t))
	fmt.Println(c.Subject, c.Roles)
	// Output: ann [admin dev]
}

func ExampleRevocationList() {
	revoked := verifier.NewRevocationList(10_000)
	v, sign := exampleVerifier(func(cfg *verifier.Config) { cfg.Revocations = revoked })
	ctx := context.Background()

	token := sign(map[string]any{"sub": "ann"})
	t := must(v.Verify(ctx, token))
	fmt.Println("before:", t.Subject())

	// Ann signs out: her tokens from before this moment end, also those in the cache.
	if err := revoked.RevokeSubject("acme", "ann", time.Now()); err != nil {
		panic(err)
	}
	_, err := v.Verify(ctx, token)
	fmt.Println("after:", errors.Is(err, verifier.ErrRevoked))
	// Output:
	// before: ann
	// after: true
}

// exampleVerifier returns a verifier with one tenant, and a function that signs claims
// for it.
func exampleVerifier(edit ...func(*verifier.Config)) (*verifier.Verifier, func(claims map[string]any) string) {
	id, secret := keystore.ID{Tenant: "acme", KID: "2026-11"}, []byte("32 bytes of acme, kept elsewhere")
	cfg := verifier.Config{Tenants: []verifier.Tenant{{
		ID: "acme", Keys: must(keystore.NewStatic(must(keystore.NewSecret(id, keystore.HS256, secret)))),
		Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: "https://acme.example", Audiences: []string{"api"},
	}}}
	for _, e := range edit {
		e(&cfg)
	}
	signer := must(rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{
		Issuer:   func(string) string { return "https://acme.example" },
		Audience: func(string) []string { return []string{"api"} },
	}))
	return must(verifier.New(cfg)), func(claims map[string]any) string {
		return must(signer.Sign(context.Background(), "acme", claims))
	}
}

// A list of tenants that changes: one is new, one is as before, and one row is wrong.
func ExampleVerifier_Sync() {
	keys := must(keystore.NewStatic(
		must(keystore.NewSecret(keystore.ID{Tenant: "acme"}, keystore.HS256, []byte("32 bytes of acme, kept elsewhere"))),
		must(keystore.NewSecret(keystore.ID{Tenant: "globex"}, keystore.HS256, []byte("32 bytes of globex, also elsewhere"))),
		must(keystore.NewSecret(keystore.ID{Tenant: "initech"}, keystore.HS256, []byte("32 bytes of initech, elsewhere too"))),
	))
	row := func(id, issuer string) verifier.Tenant {
		return verifier.Tenant{ID: id, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: issuer, Audiences: []string{"api"}}
	}
	v := must(verifier.New(verifier.Config{}))
	fmt.Println(v.Sync([]verifier.Tenant{row("acme", "https://acme.example")}))

	changed, errs := v.Sync([]verifier.Tenant{
		row("acme", "https://acme.example"),
		row("globex", "https://globex.example"),
		row("initech", "https://acme.example"),
	})
	fmt.Println("changed:", changed)
	for id, err := range errs {
		fmt.Println(id, err)
	}
	// Output:
	// 1 map[]
	// changed: 1
	// initech verifier: tenants "acme" and "initech" share the issuer "https://acme.example": then they need one and the same TenantClaim to tell their tokens apart
}

// The tenants are in a database, and the verifier asks for each when its first token comes.
func ExampleConfig_resolve() {
	id, secret := keystore.ID{Tenant: "acme", KID: "2026-11"}, []byte("32 bytes of acme, kept elsewhere")
	keys := must(keystore.NewStatic(must(keystore.NewSecret(id, keystore.HS256, secret))))
	database := map[string]verifier.Tenant{"acme": {
		ID: "acme", Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256}, Issuer: "https://acme.example", Audiences: []string{"api"},
	}}
	v := must(verifier.New(verifier.Config{
		Resolve: func(ctx context.Context, h verifier.Hint) (verifier.Tenant, error) {
			for _, t := range database { // a query: where id = h.Tenant or issuer = h.Issuer
				if t.ID == h.Tenant || t.Issuer == h.Issuer {
					return t, nil
				}
			}
			return verifier.Tenant{}, verifier.ErrUnknownTenant // and any other error, if the database fails
		},
	}))
	ctx := context.Background()
	signer := must(rotation.NewStaticSigner(id, keystore.HS256, secret, rotation.SignerConfig{}))
	token := must(signer.Sign(ctx, "acme", map[string]any{"iss": "https://acme.example", "aud": "api", "sub": "ann"}))
	t, err := v.Verify(ctx, token)
	fmt.Println(t.Tenant(), err)

	// Offboarding: the row first, and then the tenant.
	delete(database, "acme")
	fmt.Println(v.Remove("acme"))
	_, err = v.Verify(ctx, token)
	fmt.Println(errors.Is(err, verifier.ErrUnknownTenant))
	// Output:
	// acme <nil>
	// <nil>
	// true
}

// The rows of a SQL database as a list for [Verifier.Sync]. It is called at the start and every few
// seconds, or when the database says that the table has changed.
func ExampleVerifier_Sync_sql() {
	_ = func(ctx context.Context, db *sql.DB, keys keystore.KeyStore, v *verifier.Verifier) error {
		rows, err := db.QueryContext(ctx, "SELECT id, issuer, audience, suspended FROM tenants")
		if err != nil {
			return err // the tenants stay as they are
		}
		defer rows.Close()
		var list []verifier.Tenant
		for rows.Next() {
			t := verifier.Tenant{Keys: keys, Algorithms: []keystore.Algorithm{keystore.ES256}, Audiences: make([]string, 1)}
			if err := rows.Scan(&t.ID, &t.Issuer, &t.Audiences[0], &t.Suspended); err != nil {
				return err
			}
			list = append(list, t)
		}
		if err := rows.Err(); err != nil {
			return err // without this, a list that was cut off would remove the tenants that it lacks
		}
		_, errs := v.Sync(list)
		for id, err := range errs {
			slog.Error("a tenant stays as it was", "tenant", id, "error", err)
		}
		return nil
	}
}
