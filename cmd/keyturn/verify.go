package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

const verifyLong = `verify says whether a token is good: by its exit code (0 good, 1 bad), and in
words or, with --json, in one line of JSON on standard output.

The keys come from a JWK Set on file (--jwks), or from a shared secret: a file
(--secret-file), or KEYTURN_SECRET or MASTRA_JWT_SECRET in the environment; from an
issuer (--issuer-url) or a JWK Set (--jwks-url) over HTTP; or they are those of a
tenant's ring (--redis). --alg lists the algorithms that you expect; a token's own word
is never taken for it. Without --iss and --aud, those claims are not checked.
` + secretForm + `

` + issuerForm + `

` + ringForm + `

TOKEN is taken as it is; - reads one from standard input, where a line end after
it is dropped. A TOKEN that begins with a dash goes after "--".

With --redis, a good token is looked up in the list of revocations too, if that Redis has
one: a token that "keyturn revoke" or /revoke has ended is bad. The list is read under the
KEK of --kek-file; --revocations plain is for a list without one, --revocations ignore for
one that your instances do not ask. The answer says in "revoked", or with --json in
"revocations" (asked, none or ignored), what was done. Where no instance runs, this takes
some seconds: until then it cannot be known whether Redis has lost revocations.

Exit code 3 means that it cannot be told now: the issuer or Redis cannot be reached,
or what they hold cannot be used.

Exit code 2 means that the command line, a file or the environment is not right,
and says nothing of the token: then, with --json too, standard output is empty.`

const verifyExample = `  keyturn verify --secret-file secret --alg HS256 --kid 2026-11 --iss https://acme.example --aud api TOKEN
  echo "$TOKEN" | keyturn verify --jwks keys.json --alg ES256,RS256 --leeway 5s --json -
  keyturn verify --issuer-url https://login.example --iss https://login.example --alg RS256 TOKEN
  keyturn verify --redis redis://localhost:6379 --tenant acme --kek-file kek --alg HS256 TOKEN`

// A verifyCommand holds the flags of "keyturn verify".
type verifyCommand struct {
	*app
	jwks, secretFile *option[string]
	issuer           issuerFlags
	source           *jwks.Source // of issuer, once it has keys
	ring             ringFlags
	kid, tenant      *option[string]
	revocations      *option[string]
	fleet            *fleetList // which says whether the token is revoked; nil without --redis
	algs             *option[[]keystore.Algorithm]
	iss, typ         *option[string]
	aud              *list[string]
	leeway           *option[time.Duration]
	at               *option[time.Time]
	tolerate         *list[[]verifier.Tolerance]
	maxTokenBytes    *option[int]
	allowNoExp, json bool
}

func newVerify(a *app) *cobra.Command {
	v := &verifyCommand{
		app:        a,
		jwks:       newPath(),
		secretFile: newPath(),
		issuer:     newIssuerFlags(),
		ring:       newRingFlags(),
		kid:        newText("KID", ""),
		tenant:     newTenant(),
		algs:       newAlgorithms(),
		iss:        newText("ISSUER", ""),
		aud:        newTexts("AUDIENCE"),
		leeway:     newDuration(0, 5*time.Minute, 0, "none"),
		typ:        newText("TYPE", ""),
		at:         newUnix(),
		tolerate:   newTolerances(),

		revocations:   newRevocationsFlag(),
		maxTokenBytes: newMaxTokenBytes(),
	}
	cmd := &cobra.Command{
		Use:     "verify (--jwks FILE | --secret-file FILE | --issuer-url URL | ...) --alg ALG[,ALG] (TOKEN | -)",
		Short:   "Say whether a token is good",
		Long:    verifyLong,
		Example: verifyExample,
		Args:    wantToken,
		RunE:    func(cmd *cobra.Command, args []string) error { return v.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.Var(v.jwks, "jwks", "the file that holds the keys: a JWK Set")
	f.Var(v.secretFile, "secret-file", "the file that holds the shared secret")
	v.issuer.register(cmd)
	v.ring.register(cmd, "the Redis that has the tenant's ring")
	f.Var(v.revocations, "revocations", "the list of revocations there: ask, plain (without KEK) or ignore")
	f.Var(v.kid, "kid", "the name of the secret: a token that names its key must name this one")
	f.Var(v.algs, "alg", "the algorithms accepted, with commas between them; required")
	f.Var(v.iss, "iss", "the issuer that the token must have")
	f.Var(v.aud, "aud", "the audience that the token must be for; if given several times, one of them")
	f.Var(v.leeway, "leeway", "how far clocks may disagree, at most 5m; the library's default is 30s")
	f.Var(v.typ, "typ", `the type that the token's header must have (default: absent, "JWT" or "at+jwt")`)
	f.Var(v.tolerate, "tolerate", "departures from the standards to let in: inspect lists those that a token needs")
	f.Var(v.maxTokenBytes, "max-token-bytes", "the longest token accepted, in bytes, at most 1048576")
	f.Var(v.at, "now", "the moment to judge the token at, in seconds since 1970 (default: the clock's)")
	f.BoolVar(&v.allowNoExp, "allow-no-exp", false, "accept a token without exp, which never ends")
	f.Var(v.tenant, "tenant", "the owner of the keys or ring: it is not put in the token")
	f.BoolVar(&v.json, "json", false, "answer in one line of JSON")
	return cmd
}

func (c *verifyCommand) run(ctx context.Context, arg string) error {
	if !c.algs.given {
		return usagef("--alg is missing: list the algorithms that you expect, such as --alg HS256")
	}
	if err := c.ring.fromEnv(c.app, true, c.jwks.given, c.secretFile.given, c.issuer.given()); err != nil {
		return err
	}
	if err := c.oneSource(); err != nil {
		return err
	}
	switch {
	case c.ring.redis.given:
		return c.runRing(ctx, arg)
	case c.issuer.given():
		return c.runIssuer(ctx, arg)
	}
	keys, err := c.keys()
	if err != nil {
		return err
	}
	return c.judge(ctx, keys, arg)
}

// oneSource refuses a command line with several sources of keys, or with a flag that belongs to
// another source.
func (c *verifyCommand) oneSource() error {
	var given []string
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"--jwks", c.jwks.given}, {"--secret-file", c.secretFile.given}, {"--jwks-url", c.issuer.jwksURL.given},
		{"--issuer-url", c.issuer.issuerURL.given}, {"--redis", c.ring.redis.given},
	} {
		if f.given {
			given = append(given, f.name)
		}
	}
	switch {
	case len(given) > 1:
		return usagef("%s: give one of them", strings.Join(given, " and "))
	case c.ring.needRedis() != nil:
		return c.ring.needRedis()
	case c.revocations.given && !c.ring.redis.given:
		return usagef("--revocations goes with --redis, which says where the list is")
	case c.issuer.setting() != "" && !c.issuer.given():
		return usagef("%s goes with --issuer-url or --jwks-url: the others ask nothing over HTTP", c.issuer.setting())
	}
	return nil
}

// runRing judges a token by the keys of a ring. If the ring cannot be read, the answer is that the
// command cannot tell.
func (c *verifyCommand) runRing(ctx context.Context, arg string) error {
	if c.kid.given {
		return usagef("--kid names a shared secret; the keys of a ring have their own names")
	}
	err := c.withRingSession(ctx, &c.ring, c.tenant.value, func(ctx context.Context, s *ringSession, k *rotation.Keyring) error {
		c.fleet = c.fleetListOf(ctx, s)
		if _, err := ringOf(k, c.tenant.value); err != nil {
			c.note("%v", err)
		}
		return c.judge(ctx, k, arg)
	})
	f := new(exitError)
	if !errors.As(err, &f) || f.code != exitCannotTell || f.text == "" {
		return err
	}
	return c.cannotTell(f.text)
}

// judge says whether the token is good.
func (c *verifyCommand) judge(ctx context.Context, keys keystore.KeyStore, arg string) error {
	v, err := c.verifier(keys)
	if err != nil {
		return usagef("%s", errorText(err))
	}
	if !c.iss.given {
		c.note("iss is not checked: --iss says which issuer to expect")
	}
	if len(c.aud.values) == 0 {
		c.note("aud is not checked: --aud says which audience to expect")
	}
	text, err := c.token(arg, maxInputBytes)
	if err != nil {
		return err
	}
	c.noteIfEmpty(text)
	token, err := v.Verify(ctx, text)
	switch {
	case c.fleet != nil && c.fleet.err != nil:
		return c.fleet.err
	case err != nil:
		return c.refused(text, err)
	}
	c.noteIssuer(token)
	if c.fleet != nil && c.fleet.unreadable > 0 {
		c.note("%s of the list of revocations cannot be read in full: what they revoke is accepted, as by the instances; keyturn doctor says more", countOf(c.fleet.unreadable, "group"))
	}
	return c.accepted(token)
}

func (c *verifyCommand) verifier(keys keystore.KeyStore) (*verifier.Verifier, error) {
	t := verifier.Tenant{
		ID:            c.tenant.value,
		Keys:          keys,
		Algorithms:    c.algs.value,
		Issuer:        c.iss.value,
		Audiences:     c.aud.values,
		Leeway:        c.leeway.value,
		AnyIssuer:     !c.iss.given,
		AnyAudience:   len(c.aud.values) == 0,
		AllowNoExpiry: c.allowNoExp,
		MixedFamilies: true, // the user has listed both
		Tolerate:      slices.Concat(c.tolerate.values...),
	}
	if t.Leeway == 0 {
		t.Leeway = -1 // none: 0 stands for the default
	}
	if c.typ.given {
		t.Types = []string{c.typ.value}
	}
	cfg := verifier.Config{
		Tenants:       []verifier.Tenant{t},
		MaxTokenBytes: c.maxTokenBytes.value,
		CacheTTL:      -1,
		Now:           c.clock(),
	}
	if c.fleet != nil {
		cfg.Revocations = c.fleet
	}
	return verifier.New(cfg)
}

// clock returns the clock by which the token is judged. With --now it stands still.
func (c *verifyCommand) clock() func() time.Time {
	if c.at.given {
		return func() time.Time { return c.at.value }
	}
	return c.now
}

// keys returns the keys that may have signed the token.
func (c *verifyCommand) keys() (*keystore.Static, error) {
	switch {
	case c.jwks.given && c.kid.given:
		return nil, usagef("--kid names a shared secret; the keys of --jwks have their own names")
	case c.jwks.given:
		return c.setKeys()
	}
	secret, err := c.secret(c.secretFile)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		return nil, usagef("no key to verify with: give --jwks or --secret-file, or set %s; or name an issuer with --issuer-url", envSecrets)
	}
	return c.secretKeys(secret)
}

// setKeys reads the JWK Set. A set without a usable key is not an error: then the key of every token
// is unknown.
func (c *verifyCommand) setKeys() (*keystore.Static, error) {
	f, err := c.readFile("--jwks", c.jwks.value, "a JWK Set", holdsRules)
	if err != nil {
		return nil, err
	}
	keys, skipped, err := jwks.ParseWithSecrets(c.tenant.value, f.text)
	if err != nil {
		return nil, usagef("the file of --jwks: %s", errorText(err))
	}
	if err := c.judgeSet(f, keys); err != nil {
		return nil, err
	}
	for _, s := range skipped {
		c.note("skipped %s", printable(s.String(), false))
	}
	if r, err := jwks.Inspect(c.tenant.value, f.text); err == nil {
		c.noteIrregular(r.Irregular)
	}
	if len(keys) == 0 {
		c.note("no key of the set is usable")
	}
	return newStatic(keys...)
}

// secretKeys returns a key for each HS* algorithm for which the secret is long enough.
func (c *verifyCommand) secretKeys(s *secret) (*keystore.Static, error) {
	var keys []*keystore.Key
	var failed []error
	id := keystore.ID{Tenant: c.tenant.value, KID: c.kid.value}
	for _, alg := range c.algs.value {
		if !alg.Symmetric() {
			continue
		}
		k, err := s.key(id, alg)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		keys = append(keys, k)
	}
	switch {
	case len(keys) == 0 && len(failed) == 0:
		return nil, usagef("a shared secret verifies HS256, HS384 and HS512 only: put one of them in --alg, or give --jwks")
	case len(keys) == 0:
		return nil, failed[0]
	}
	for _, err := range failed {
		c.note("%v", err)
	}
	return newStatic(keys...)
}

func (c *verifyCommand) accepted(t *verifier.Token) error {
	claims, err := verifier.Claims[jsontext.Value](t)
	if err != nil {
		return exitf(exitCannotTell, "%s", errorText(err))
	}
	if c.json {
		asked := ""
		if c.fleet != nil {
			asked = `,"revocations":` + quoteJSON(c.fleet.said)
		}
		return c.print(fmt.Sprintf(`{"ok":true,"tenant":%s,"kid":%s,"alg":%s,"claims":%s%s}`+"\n",
			quoteJSON(t.Tenant()), quoteJSON(t.KeyID()), quoteJSON(string(t.Algorithm())), compactJSON(claims), asked))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ok: the token is good\n")
	fmt.Fprintf(&b, "  tenant   %s\n", strconv.Quote(t.Tenant()))
	if t.KeyID() != "" {
		fmt.Fprintf(&b, "  kid      %s\n", strconv.Quote(t.KeyID()))
	}
	fmt.Fprintf(&b, "  alg      %s\n", t.Algorithm())
	expires := "never"
	if exp := t.Expires(); !exp.IsZero() {
		expires = since(exp, c.clock()()) + " (" + stamp(exp) + ")"
	}
	fmt.Fprintf(&b, "  expires  %s\n", expires)
	if c.fleet != nil {
		fmt.Fprintf(&b, "  revoked  %s\n", c.fleet.text())
	}
	fmt.Fprintf(&b, "  claims   %s\n", compactJSON(claims))
	return c.print(b.String())
}

// refused says why a token is not good. Of the token it shows only the kid and the name of a claim,
// quoted; a note may also show its alg or typ.
func (c *verifyCommand) refused(token string, err error) error {
	code := exitNo
	if errors.Is(err, verifier.ErrUnavailable) {
		code = exitCannotTell
	}
	bad := new(verifier.Error)
	errors.As(err, &bad)
	for _, hint := range c.hints(token, bad) {
		c.note("%s", hint)
	}
	if !c.json {
		return exitf(code, "refused (%s): %s", bad.Reason, c.brief(bad))
	}
	return c.answer(code, bad.Reason, errorText(err))
}

// answer prints as JSON why the token is not good, or cannot be judged.
func (c *verifyCommand) answer(code int, reason verifier.Reason, text string) error {
	line := fmt.Sprintf(`{"ok":false,"reason":%s,"error":%s}`+"\n", quoteJSON(string(reason)), quoteJSON(text))
	if err := c.print(line); err != nil {
		return err
	}
	return &exitError{code: code}
}

// brief returns the words for a refusal. It leaves the key's name out if neither the user nor the
// token has named the key.
func (c *verifyCommand) brief(bad *verifier.Error) string {
	short := *bad
	if !c.tenant.given && !c.kid.given && bad.Key.KID == "" {
		short.Tenant, short.Key = "", keystore.ID{}
	}
	return errorText(&short)
}

// hints returns what to do about a refusal, or details about it.
func (c *verifyCommand) hints(token string, bad *verifier.Error) []string {
	if missing := c.notTolerated(token); len(missing) > 0 && strings.Contains(bad.Error(), "Tolerate ") {
		return []string{"the token departs from the standards; if its issuer is known for that: --tolerate " + strings.Join(missing, ",")}
	}
	switch {
	case bad.Reason == verifier.ReasonTooLarge:
		return []string{"--max-token-bytes accepts longer ones"}
	case bad.Reason == verifier.ReasonRevokedKey:
		return []string{"the ring's key of that kid was revoked: no token of it is good any more"}
	case bad.Reason == verifier.ReasonRevoked:
		return []string{"the list of revocations in this Redis has the token, its session, its subject or its whole tenant: there is no undo"}
	case bad.Reason == verifier.ReasonMalformed:
		_, found := stripToken(token)
		return found
	case bad.Reason == verifier.ReasonAlgorithm:
		return []string{headerSays(token, "alg") + "; --alg lists " + joinAlgorithms(c.algs.value)}
	case bad.Reason == verifier.ReasonType:
		return c.typeHints(token)
	case bad.Reason == verifier.ReasonUnknownKey && c.ring.redis.given:
		return []string{"the ring has no such key for this algorithm: it was revoked, its tokens have ended, or it is another tenant's"}
	case bad.Reason == verifier.ReasonUnknownKey && c.source != nil:
		return []string{"the issuer has no such key for this algorithm: has it rotated its keys, or is the token another issuer's? It has " + heldKeys(c.source.Status())}
	case bad.Reason == verifier.ReasonUnavailable && c.source != nil:
		return c.failedAgain()
	case bad.Reason == verifier.ReasonUnknownKey && !c.jwks.given && bad.Key.KID != "":
		return []string{fmt.Sprintf("the token names the kid %q: if that is this secret's, say so with --kid", bad.Key.KID)}
	case bad.Reason == verifier.ReasonSignature && (c.jwks.given || c.source != nil || c.ring.redis.given):
		return []string{"the token was made with another key, or changed since"}
	case bad.Reason == verifier.ReasonSignature:
		return []string{"the token was made with another secret, or changed since"}
	case bad.Reason == verifier.ReasonMissingClaim && bad.Claim == "exp":
		return []string{"a token without exp never ends; --allow-no-exp accepts it"}
	}
	return nil
}

// notTolerated returns the tolerances that the token needs and the command line lacks.
func (c *verifyCommand) notTolerated(token string) (names []string) {
	needs, err := verifier.Needs(token)
	if err != nil {
		return nil
	}
	for _, t := range needs {
		if !slices.Contains(slices.Concat(c.tolerate.values...), t) {
			names = append(names, string(t))
		}
	}
	return names
}

func (c *verifyCommand) typeHints(token string) []string {
	if _, nested := unverifiedHeader(token)["cty"]; nested {
		return nil // the refusal is about cty, and says so
	}
	want := `without --typ, none, "JWT" or "at+jwt" is accepted`
	if c.typ.given {
		want = "--typ wants " + quoteShort(c.typ.value)
	}
	return []string{headerSays(token, "typ") + "; " + want}
}

// headerSays says what value a parameter of the token's header has, if that is a string.
func headerSays(token, name string) string {
	value, ok := textOf(unverifiedHeader(token)[name])
	if !ok {
		return "the token's header (not verified) has no " + name
	}
	return fmt.Sprintf("the token's header (not verified) has %s %s", name, quoteShort(value))
}
