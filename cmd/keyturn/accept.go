package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/jwk"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/ring"
)

const acceptLong = `accept lets a key verify a tenant's tokens until a date, at most 400 days ahead: the
key of a partner, or one from the time before the ring. It signs nothing and is in no
JWK Set. The tenant need not have a ring. "keyturn keys list" shows accepted keys, and
"keyturn keys revoke KID" ends one at once.

The key is a shared secret (--secret-file), a public key in PEM or a JWK (--key-file),
or all keys of a JWK Set (--jwks-file). --kid is the kid in its tokens, --no-kid says
that they have none: then a random KID names the key here. A secret needs one of the
two. A PEM without --kid takes the thumbprint of its key (RFC 7638). The algorithm is
HS256 for a secret, that of the JWK, or the first that the key is for; --alg says another.

accept again with a later date extends the time. An earlier one is refused (exit code
1): revoke ends a key. A key that was revoked is never accepted again under its kid.

With --dry-run it says what it would do, and changes nothing. With --json that is
{"dry_run","tenant","accepted","until","live"}: "live" are the instances that live, and
a key without kid that is not accepted yet has no name in "accepted".

--weak takes a secret that is shorter than the hash, from 16 bytes on, for at most 90
days from the first acceptance on. A person can guess such a secret from a token.

` + secretForm + "\n\n" + waitHelp + `

With --json it prints the receipt that "keyturn keys revoke --help" describes, with
"accepted", the kids, and "until". "committed_at" is null if all were accepted until
that date already.`

// An acceptCommand holds the flags of "keyturn keys accept".
type acceptCommand struct {
	*keysCommand
	secretFile, keyFile, jwksFile *option[string]
	kid                           *option[string]
	alg                           *option[keystore.Algorithm]
	date                          *option[time.Time]
	noKID, weak                   bool
}

func newKeysAccept(a *app) *cobra.Command {
	keys, cmd := newKeysCommand(a, "accept --redis URL [--tenant TENANT] (--secret-file F | --key-file F | --jwks-file F) --until DATE",
		"Let a key verify until a date, and sign nothing", acceptLong,
		`  keyturn keys accept --redis redis://localhost:6379 --tenant acme --kek-file kek --secret-file old.secret --no-kid --until 2027-03-31T00:00:00Z
  keyturn keys accept --redis redis://localhost:6379 --tenant acme --kek-file kek --key-file partner.pem --kid 2026-11 --until 1806451200`)
	c := &acceptCommand{keysCommand: keys, secretFile: newPath(), keyFile: newPath(), jwksFile: newPath(), kid: newText("KID", ""),
		alg: &option[keystore.Algorithm]{kind: "ALG", parse: parseAlgorithm}, date: newMoment()}
	flags := cmd.Flags()
	flags.Var(c.secretFile, "secret-file", "the file of a shared secret")
	flags.Var(c.keyFile, "key-file", "the file of a public key, in PEM or as a JWK")
	flags.Var(c.jwksFile, "jwks-file", "the file of a JWK Set, all keys of which are accepted")
	flags.Var(c.kid, "kid", "the kid in the tokens of the key")
	flags.BoolVar(&c.noKID, "no-kid", false, "the tokens of the key have no kid")
	flags.Var(c.alg, "alg", "the algorithm of the key")
	flags.Var(c.date, "until", "until when the key is accepted: RFC 3339, or Unix seconds; required")
	flags.BoolVar(&c.weak, "weak", false, "the secret may be short, from 16 bytes on")
	flags.BoolVar(&c.dryRun, "dry-run", false, "change nothing; say what would be accepted")
	c.waits.register(cmd)
	c.ringless = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.accept(cmd.Context()) }
	return cmd
}

// newMoment returns a flag for a moment in RFC 3339 or in seconds since 1970.
func newMoment() *option[time.Time] {
	unix := newUnix()
	return &option[time.Time]{kind: "DATE", parse: func(s string) (time.Time, error) {
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t.UTC(), nil
		}
		if t, err := unix.parse(s); err == nil {
			return t.UTC(), nil
		}
		return time.Time{}, errors.New("want a date in RFC 3339, such as 2026-12-24T03:00:00Z, or seconds since 1970")
	}}
}

func (c *acceptCommand) accept(ctx context.Context) error {
	keys, err := c.keys()
	if err != nil {
		return err
	}
	do := func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
		return r.Accept(ctx, c.tenant.value, keys, c.until, opts...)
	}
	if c.dryRun {
		return c.answer(c.previewAccept(ctx, do))
	}
	return c.change(ctx, "", do)
}

// An acceptPlanJSON is what --dry-run --json prints.
type acceptPlanJSON struct {
	DryRun   bool     `json:"dry_run"`
	Tenant   string   `json:"tenant"`
	Accepted []string `json:"accepted"`
	Until    *string  `json:"until"`
	Live     []string `json:"live"`
}

// previewAccept says what would be accepted.
func (c *acceptCommand) previewAccept(ctx context.Context, do ringChange) error {
	if err := c.waits.check(); err != nil {
		return err
	}
	return c.withRotator(ctx, settleNot, func(ctx context.Context, o *opened) error {
		before, err := ringOf(o.keyring, c.tenant.value)
		if none := (*exitError)(nil); err != nil && !(errors.As(err, &none) && none.code == exitNo) {
			return err
		}
		receipt, _, err := c.apply(ctx, o.rotator, do)
		if err != nil {
			return err
		}
		live, err := c.liveIn(ctx, o.rotator, c.tenant.value, newestTiming(before.Ring))
		if err != nil {
			return err
		}
		return c.print(c.planned(&before, receipt.Accepted, live))
	})
}

// planned returns what would be accepted, for people or, with --json, for programs.
func (c *acceptCommand) planned(before *rotation.TenantStatus, kids []string, live []rotation.Ack) string {
	now := c.now()
	plan := acceptPlanJSON{DryRun: true, Tenant: c.tenant.value, Accepted: []string{}, Until: when(c.until), Live: []string{}}
	var b strings.Builder
	for _, kid := range kids {
		i := slices.IndexFunc(before.Accepted, func(a ring.Accepted) bool { return a.KID == kid })
		name := "key " + strconv.Quote(kid)
		if i < 0 && c.noKID {
			name = "a key without kid" // its name here would be another random one
		} else {
			plan.Accepted = append(plan.Accepted, kid)
		}
		if i >= 0 && before.Accepted[i].Until.Equal(c.until) {
			fmt.Fprintf(&b, "%s of tenant %s is accepted until then already\n", name, quoteShort(c.tenant.value))
			continue
		}
		fmt.Fprintf(&b, "%s of tenant %s WOULD BE accepted until %s (%s)\n", name, quoteShort(c.tenant.value), stamp(c.until), since(c.until, now))
	}
	for _, a := range live {
		plan.Live = append(plan.Live, a.Instance)
	}
	if c.json {
		return toJSON(plan)
	}
	fmt.Fprintf(&b, "  nothing was changed; %s would hear of it\n", instances(len(live)))
	return b.String()
}

// keys returns the keys that the flags name.
func (c *acceptCommand) keys() (keys []ring.ForeignKey, err error) {
	files := 0
	for _, o := range []*option[string]{c.secretFile, c.keyFile, c.jwksFile} {
		if o.given {
			files++
		}
	}
	switch {
	case files != 1:
		return nil, usagef("give the key with one of --secret-file, --key-file and --jwks-file")
	case !c.date.given:
		return nil, usagef("--until is missing: until when is the key to be accepted? Such as --until %s", c.now().AddDate(0, 1, 0).UTC().Format(time.RFC3339))
	case c.kid.given && c.noKID:
		return nil, usagef("--kid and --no-kid: give one of them")
	case c.weak && !c.secretFile.given:
		return nil, usagef("--weak is for a secret: give it with --secret-file")
	case len(c.kid.value) > keystore.MaxKIDBytes:
		return nil, usagef("--kid has %d bytes: no token can name a key by more than %d", len(c.kid.value), keystore.MaxKIDBytes)
	}
	c.until = c.date.value
	keysOf := c.setKeys
	switch {
	case c.secretFile.given:
		keysOf = c.secretKey
	case c.keyFile.given:
		keysOf = c.fileKey
	}
	if keys, err = keysOf(); err != nil {
		return nil, err
	}
	for i := range keys {
		keys[i].Weak, keys[i].NoKID = c.weak, c.noKID
		if c.noKID {
			keys[i].KID = ""
		}
	}
	return keys, nil
}

// secretKey returns the key of --secret-file.
func (c *acceptCommand) secretKey() ([]ring.ForeignKey, error) {
	if !c.kid.given && !c.noKID {
		return nil, usagef("--secret-file needs --kid, the kid in the tokens of the secret, or --no-kid if they have none; \"keyturn inspect\" shows a token's kid")
	}
	s, err := c.fileSecret("--secret-file", c.secretFile.value)
	if err != nil {
		return nil, err
	}
	alg := keystore.HS256
	if c.alg.given {
		alg = c.alg.value
	}
	if alg.Symmetric() && !c.weak && len(s.bytes()) < alg.Hash().Size() {
		return nil, usagef("--secret-file: the secret for %s is %s, want at least %d (RFC 7518, section 3.2); --weak accepts a secret from 16 bytes on, for at most 90 days",
			alg, countOf(len(s.bytes()), "byte"), alg.Hash().Size())
	}
	if c.weak {
		_, err = keystore.NewWeakSecret(keystore.ID{}, alg, s.bytes(), c.until)
	} else {
		_, err = keystore.NewSecret(keystore.ID{}, alg, s.bytes())
	}
	if err != nil {
		return nil, usagef("--secret-file: %s", errorText(err))
	}
	return []ring.ForeignKey{{KID: c.kid.value, Algorithm: alg, Key: s.bytes()}}, nil
}

// fileKey returns the key of --key-file.
func (c *acceptCommand) fileKey() ([]ring.ForeignKey, error) {
	f, err := c.readFile("--key-file", c.keyFile.value, "a public key", holdsRules)
	if err != nil {
		return nil, err
	}
	if doc := bytes.TrimSpace(bytes.TrimPrefix(f.text, []byte("\ufeff"))); bytes.HasPrefix(doc, []byte("{")) {
		return c.parseSet("--key-file", slices.Concat([]byte(`{"keys":[`), doc, []byte(`]}`)))
	}
	pub, err := publicOfPEM(f.text)
	if err != nil {
		return nil, err
	}
	alg, kid := c.alg.value, c.kid.value
	if !c.alg.given {
		if alg = algorithmOf(pub); alg == "" {
			return nil, usagef("the file of --key-file has a key that no algorithm is for: want RSA, EC on P-256, P-384 or P-521, or Ed25519")
		}
	}
	if _, err := keystore.NewPublic(keystore.ID{}, alg, pub); err != nil {
		return nil, usagef("--key-file: %s", errorText(err))
	}
	if !c.kid.given {
		if kid, err = jwk.Thumbprint(pub); err != nil {
			return nil, usagef("--key-file: %s", errorText(err))
		}
	}
	return []ring.ForeignKey{{KID: kid, Algorithm: alg, Key: pub}}, nil
}

// publicOfPEM returns the public key of a PEM file: of a key, or of a certificate. Of a private key it
// is the public part.
func publicOfPEM(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, usagef("the file of --key-file holds neither a PEM block nor a JWK; a secret is given with --secret-file, a JWK Set with --jwks-file")
	}
	switch block.Type {
	case "PUBLIC KEY":
		if pub, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			return pub, nil
		}
	case "RSA PUBLIC KEY":
		if pub, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
			return pub, nil
		}
	case "CERTIFICATE":
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			return cert.PublicKey, nil
		}
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		return nil, usagef(`the file of --key-file holds a private key, and accept wants the public one: "openssl pkey -in FILE -pubout" prints it`)
	}
	return nil, usagef("the file of --key-file holds a PEM block that is no public key and no certificate")
}

// algorithmOf returns the algorithm that a public key is probably for, or "".
func algorithmOf(pub crypto.PublicKey) keystore.Algorithm {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return keystore.RS256
	case *ecdsa.PublicKey:
		return map[int]keystore.Algorithm{256: keystore.ES256, 384: keystore.ES384, 521: keystore.ES512}[pub.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return keystore.EdDSA
	}
	return ""
}

// setKeys returns the keys of --jwks-file.
func (c *acceptCommand) setKeys() ([]ring.ForeignKey, error) {
	f, err := c.readFile("--jwks-file", c.jwksFile.value, "a JWK Set", holdsRules)
	if err != nil {
		return nil, err
	}
	return c.parseSet("--jwks-file", f.text)
}

// parseSet returns the public keys of a JWK Set. A JWK without alg is taken for the algorithm that it is
// probably for.
func (c *acceptCommand) parseSet(flag string, doc []byte) ([]ring.ForeignKey, error) {
	parsed, skipped, err := jwks.Parse(c.tenant.value, doc)
	if err != nil {
		return nil, usagef("%s: %s", flag, errorText(err))
	}
	for _, s := range skipped {
		c.note("%s: a key is skipped: %s", flag, printable(s.String(), false))
	}
	var keys []ring.ForeignKey
	for _, k := range parsed {
		pub, _ := k.Public()
		want := algorithmOf(pub)
		several := slices.ContainsFunc(parsed, func(o *keystore.Key) bool { return o != k && o.ID() == k.ID() && !o.Algorithm().Same(k.Algorithm()) })
		if c.alg.given {
			want, several = c.alg.value, true
		}
		if several && !k.Algorithm().Same(want) || slices.ContainsFunc(keys, func(o ring.ForeignKey) bool { return o.KID == k.ID().KID && o.Algorithm.Same(k.Algorithm()) }) {
			continue
		}
		keys = append(keys, ring.ForeignKey{KID: k.ID().KID, Algorithm: k.Algorithm(), Key: pub})
	}
	switch {
	case len(keys) == 0:
		return nil, usagef("%s: no public key of it is usable; a secret is given with --secret-file", flag)
	case len(keys) > 1 && c.kid.given:
		return nil, usagef("%s has %d keys, and --kid is for one: give each key in a file of its own", flag, len(keys))
	}
	for i := range keys {
		if c.kid.given {
			keys[i].KID = c.kid.value
		}
		if keys[i].KID == "" && !c.noKID {
			return nil, usagef("%s: a key has no kid: give --no-kid if tokens have none, or --kid", flag)
		}
	}
	return keys, nil
}

// acceptedText is the receipt of accept for people.
func (p *receiptPrinter) acceptedText() string {
	var b strings.Builder
	r := &p.receipt
	for _, kid := range r.Accepted {
		fmt.Fprintf(&b, "key %s of tenant %s is accepted until %s (%s)\n", strconv.Quote(kid), quoteShort(r.Tenant), stamp(p.until), since(p.until, p.now()))
	}
	if r.CommittedAt.IsZero() {
		b.WriteString("  committed    nothing: it was accepted until then already; no instance was asked\n")
	} else {
		fmt.Fprintf(&b, "  committed    %s\n", r.CommittedAt.UTC().Format(milliseconds))
	}
	return b.String()
}

// An acceptedKey is an accepted key, and the live instances that have it.
type acceptedKey struct {
	ring.Accepted
	instances []string
}

// acceptedKeys returns the accepted keys of a ring. An instance that has been in sync since long after a
// key was accepted has the key.
func (c *keysCommand) acceptedKeys(ctx context.Context, k *rotation.Keyring, status *rotation.TenantStatus) (keys []acceptedKey) {
	if len(status.Accepted) == 0 {
		return nil
	}
	timing := newestTiming(status.Ring)
	var acks []rotation.Ack
	r, err := rotation.NewRotator(k)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, ringTime)
		defer cancel()
		acks, err = r.Acks(ctx, rotation.Receipt{Tenant: c.tenant.value})
	}
	if err != nil {
		c.note("it is not known which instances have the accepted keys: %s", printable(errorText(err), false))
	}
	for _, a := range status.Accepted {
		key := acceptedKey{Accepted: a, instances: []string{}}
		for _, ack := range acks {
			known := ack.At.After(a.Created.Add(timing.HeardWithin()))
			if live := c.now().Sub(ack.At) <= timing.Freshness; live && known && !ack.GoodSince.IsZero() {
				key.instances = append(key.instances, ack.Instance)
			}
		}
		keys = append(keys, key)
	}
	return keys
}

// json returns the key as "keys list --json" has it.
func (k *acceptedKey) json() keyJSON {
	state := "accepted"
	if !k.RevokedAt.IsZero() {
		state = string(ring.Revoked)
	}
	return keyJSON{KID: k.KID, Algorithm: string(k.Algorithm), State: state, DroppedAt: when(k.Until), Until: when(k.Until), Weak: k.Weak, NoKID: k.NoKID, Instances: &k.instances}
}

// acceptedText lists accepted keys for people.
func acceptedText(keys []acceptedKey, now time.Time) string {
	if len(keys) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\naccepted keys, which sign nothing:\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "     %s  %s", printable(k.KID, false), k.Algorithm)
		if k.NoKID {
			b.WriteString(", for tokens without kid")
		}
		if k.Weak {
			b.WriteString(", WEAK")
		}
		if !k.RevokedAt.IsZero() {
			fmt.Fprintf(&b, "\n       revoked %s (%s)\n", since(k.RevokedAt, now), stamp(k.RevokedAt))
			continue
		}
		fmt.Fprintf(&b, "\n       until %s (%s); %s in sync since it was accepted\n", stamp(k.Until), since(k.Until, now), instances(len(k.instances)))
	}
	return b.String()
}
