package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
	"github.com/keyturn/keyturn/verifier"
)

const signLong = `sign prints a token, and nothing else, on standard output.

It signs with a shared secret or, with --redis, with the key of a tenant's ring that
signs now; then it exits with 1 if none does, or if --ttl is above the ring's
longest, and with 3 if Redis cannot be reached.

The secret comes from --secret-file, or from KEYTURN_SECRET or MASTRA_JWT_SECRET
in the environment. It must be as long as the algorithm's hash: 32 bytes for
HS256. Make one with: (umask 077; openssl rand -base64 32 > secret)
` + secretForm + `

Each --claim adds a claim whose value is a string, each --claim-json one whose
value is written in JSON: a number, true, a list. Where you do not set them, the
token gets iat (now), exp (now and --ttl) and jti (random).

` + ringForm

const signExample = `  keyturn sign --secret-file secret --claim sub=ann --ttl 15m
  keyturn sign --secret-file secret --iss https://acme.example --aud api --kid 2026-11 \
    --claim sub=ann --claim scope="read write" --claim-json roles='["admin"]' --claim-json level=3
  keyturn sign --secret-file secret --claim sub=ann --claim-json exp=1700000000   # expired, for a test
  keyturn sign --redis redis://localhost:6379 --tenant acme --kek-file kek --claim sub=ann`

// A signCommand holds the flags of "keyturn sign".
type signCommand struct {
	*app
	secretFile  *option[string]
	ring        ringFlags
	alg         *option[keystore.Algorithm]
	kid, tenant *option[string]
	ttl         *option[time.Duration]
	iss, typ    *option[string]
	aud         *list[string]
	claims      claimFlags
}

func newSign(a *app) *cobra.Command {
	s := &signCommand{
		app:        a,
		secretFile: newPath(),
		ring:       newRingFlags(),
		alg:        &option[keystore.Algorithm]{value: keystore.HS256, kind: "ALG", shown: "HS256", parse: parseSigningAlgorithm},
		kid:        newText("KID", ""),
		tenant:     newRingTenant(),
		ttl:        newDuration(time.Second, math.MaxInt64, 15*time.Minute, "15m, or the ring's longest if shorter"),
		iss:        newText("ISSUER", ""),
		typ:        newText("TYPE", "JWT"),
		aud:        newTexts("AUDIENCE"),
	}
	cmd := &cobra.Command{
		Use:     "sign [--secret-file FILE | --redis URL] [--claim NAME=VALUE]...",
		Short:   "Make a token",
		Long:    signLong,
		Example: signExample,
		Args:    wantNothing(claimHint),
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.Var(s.secretFile, "secret-file", "the file that holds the secret")
	s.ring.register(cmd, "the Redis that has the ring to sign with")
	f.Var(stringClaim{&s.claims}, "claim", "a claim whose value is a string; may be given several times")
	f.Var(jsonClaim{&s.claims}, "claim-json", "a claim whose value is JSON; may be given several times")
	f.Var(s.ttl, "ttl", "how long the token is good")
	f.Var(s.iss, "iss", "the issuer: who makes the token")
	f.Var(s.aud, "aud", "the audience: whom the token is for; may be given several times")
	f.Var(s.alg, "alg", "HS256, HS384 or HS512")
	f.Var(s.kid, "kid", "the name of the secret, for verifiers that know several")
	f.Var(s.typ, "typ", "the type in the token's header")
	f.Var(s.tenant, "tenant", "the owner of the secret or ring: it is not put in the token")
	return cmd
}

// claimHint returns advice about an argument that was probably meant as a claim.
func claimHint(arg string) string {
	if !strings.Contains(arg, "=") {
		return ""
	}
	return "a claim goes after --claim, such as --claim sub=ann"
}

func parseSigningAlgorithm(s string) (keystore.Algorithm, error) {
	alg, err := parseAlgorithm(s)
	if err != nil || !alg.Symmetric() {
		return "", errors.New("want HS256, HS384 or HS512: a secret signs with no other; for private keys there is package rotation")
	}
	return alg, nil
}

func (s *signCommand) run(ctx context.Context) error {
	if err := s.claims.contradicts(s); err != nil {
		return err
	}
	if err := s.ring.fromEnv(s.app, true, s.secretFile.given); err != nil {
		return err
	}
	if s.ring.redis.given {
		return s.runRing(ctx)
	}
	if err := s.ring.needRedis(); err != nil {
		return err
	}
	secret, err := s.secret(s.secretFile)
	if err != nil {
		return err
	}
	if secret == nil {
		return usagef("no secret to sign with: give --secret-file, or set %s; or --redis or %s, to sign with a ring", envSecrets, envRedis)
	}
	id := keystore.ID{Tenant: s.tenant.value, KID: s.kid.value}
	key, err := secret.key(id, s.alg.value)
	if err != nil {
		return err
	}
	signer, err := rotation.NewStaticSigner(id, s.alg.value, secret.bytes(), s.config(s.ttl.value))
	if err != nil {
		return usagef("%s", errorText(err))
	}
	keys, err := keystore.NewStatic(key)
	if err != nil {
		return usagef("%s", errorText(err))
	}
	return s.sign(ctx, signer, keys, []keystore.Algorithm{s.alg.value})
}

// runRing signs with the key of a ring.
func (s *signCommand) runRing(ctx context.Context) error {
	for flag, given := range map[string]bool{"--secret-file": s.secretFile.given, "--alg": s.alg.given, "--kid": s.kid.given} {
		if given {
			return usagef("%s goes with a secret: the ring of --redis says what signs", flag)
		}
	}
	return s.withRing(ctx, &s.ring, s.tenant.value, func(ctx context.Context, k *rotation.Keyring) error {
		status, err := ringOf(k, s.tenant.value)
		if err != nil {
			return err
		}
		if len(status.Ring.Keys) == 0 { // only accepted keys
			return noRing(s.tenant.value)
		}
		if status.Err != nil && !status.Fresh {
			return ringError(status.Err) // a part cannot be opened, and may be a revocation
		}
		ttl := time.Duration(0) // the default, or the ring's longest
		if s.ttl.given {
			ttl = s.ttl.value
		}
		signer, err := rotation.NewSigner(k, s.config(ttl))
		if err != nil {
			return usagef("%s", errorText(err))
		}
		return s.sign(ctx, signer, k, algorithmsOf(status.Ring))
	})
}

// algorithmsOf returns the algorithms of the keys of a ring.
func algorithmsOf(ring ring.Ring) []keystore.Algorithm {
	var algs []keystore.Algorithm
	for _, k := range ring.Keys {
		if !slices.Contains(algs, k.Algorithm) {
			algs = append(algs, k.Algorithm)
		}
	}
	return algs
}

func (s *signCommand) config(ttl time.Duration) rotation.SignerConfig {
	return rotation.SignerConfig{
		TTL:      ttl,
		Issuer:   func(string) string { return s.iss.value },
		Audience: func(string) []string { return s.aud.values },
		Type:     s.typ.value,
		Now:      s.now,
	}
}

// sign makes a token, and prints it if the keys verify it.
func (s *signCommand) sign(ctx context.Context, signer *rotation.Signer, keys keystore.KeyStore, algs []keystore.Algorithm) error {
	token, err := signer.Sign(ctx, s.tenant.value, s.claims.object())
	if err != nil {
		return ringError(err)
	}
	if err := s.check(ctx, keys, algs, token); err != nil {
		return err
	}
	return s.print(token + "\n")
}

// check returns an error if no keyturn verifier would accept the token's form or claims, however it
// is configured. An expired token, or one that is not yet valid, may be just what the user wants.
func (s *signCommand) check(ctx context.Context, keys keystore.KeyStore, algs []keystore.Algorithm, token string) error {
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{{
			ID: s.tenant.value, Keys: keys, Algorithms: algs, MixedFamilies: true,
			Types: []string{s.typ.value}, AnyIssuer: true, AnyAudience: true, Leeway: -1,
		}},
		MaxTokenBytes: 1 << 20,
		CacheTTL:      -1,
		Now:           s.now,
	})
	if err != nil {
		return usagef("%s", errorText(err))
	}
	_, err = v.Verify(ctx, token)
	if err == nil || errors.Is(err, verifier.ErrExpired) || errors.Is(err, verifier.ErrNotYetValid) {
		return nil
	}
	return usagef("no verifier would accept a token with these claims: %s", errorText(err))
}

// claimFlags are the claims of --claim and --claim-json.
type claimFlags struct {
	names  []string
	values []jsontext.Value
}

func (c *claimFlags) add(name string, value jsontext.Value) error {
	if name == "" {
		return errors.New("want NAME=VALUE, and there is no NAME")
	}
	if slices.Contains(c.names, name) {
		return fmt.Errorf("claim %s is given twice", quoteJSON(name))
	}
	c.names = append(c.names, name)
	c.values = append(c.values, value)
	return nil
}

// contradicts returns an error if a claim is set in two ways.
func (c *claimFlags) contradicts(s *signCommand) error {
	for _, other := range []struct {
		claim, flag string
		given       bool
	}{
		{"iss", "--iss", s.iss.given},
		{"aud", "--aud", len(s.aud.values) > 0},
		{"exp", "--ttl", s.ttl.given},
	} {
		if other.given && slices.Contains(c.names, other.claim) {
			return usagef("claim %q is given twice: once by %s", other.claim, other.flag)
		}
	}
	return nil
}

// object returns the claims as a JSON object, in the order of the command line.
func (c *claimFlags) object() jsontext.Value {
	b := jsontext.Value("{")
	for i, name := range c.names {
		if i > 0 {
			b = append(b, ',')
		}
		b, _ = jsontext.AppendQuote(b, name) // is valid UTF-8
		b = append(append(b, ':'), c.values[i]...)
	}
	return append(b, '}')
}

// splitClaim splits the value of --claim or --claim-json.
func splitClaim(s string) (name, value string, err error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return "", "", errors.New("want NAME=VALUE, such as sub=ann")
	}
	if _, err := parseText(s); err != nil {
		return "", "", err
	}
	return name, value, nil
}

// A stringClaim is the [pflag.Value] of --claim.
type stringClaim struct{ claims *claimFlags }

// Set implements [pflag.Value].
func (c stringClaim) Set(s string) error {
	name, value, err := splitClaim(s)
	if err != nil {
		return err
	}
	quoted, err := jsontext.AppendQuote(nil, value)
	if err != nil {
		return err
	}
	return c.claims.add(name, quoted)
}

// String implements [pflag.Value].
func (c stringClaim) String() string { return "" }

// Type implements [pflag.Value].
func (c stringClaim) Type() string { return "NAME=VALUE" }

// A jsonClaim is the [pflag.Value] of --claim-json.
type jsonClaim struct{ claims *claimFlags }

// Set implements [pflag.Value].
func (c jsonClaim) Set(s string) error {
	name, value, err := splitClaim(s)
	if err != nil {
		return err
	}
	v := jsontext.Value(value)
	if !v.IsValid() {
		return errors.New(`the value is not strict JSON: a text wants --claim, or quotes of its own, as in name='"text"'`)
	}
	return c.claims.add(name, v)
}

// String implements [pflag.Value].
func (c jsonClaim) String() string { return "" }

// Type implements [pflag.Value].
func (c jsonClaim) Type() string { return "NAME=JSON" }
