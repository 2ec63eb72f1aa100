package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/jwt"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

const inspectLong = `inspect shows what is inside a token, and says its times in words. It does NOT
verify it: anyone can write a token that says anything. It warns about what a
verifier would refuse, or a reader should know, and lists the departures from the
standards that verify and serve let in with --tolerate.

It exits with 0 if it could decode the token, and with 1 if not.`

const inspectExample = `  keyturn inspect TOKEN
  echo "$TOKEN" | keyturn inspect -`

func newInspect(a *app) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:     "inspect (TOKEN | -)",
		Short:   "Show what is inside a token, without verifying it",
		Long:    inspectLong,
		Example: inspectExample,
		Args:    wantToken,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.token(args[0], maxInputBytes)
			if err != nil {
				return err
			}
			a.noteIfEmpty(text)
			i := inspect(cmd.Context(), text, a.now())
			if asJSON {
				err = a.print(i.json())
			} else {
				err = a.print(i.text(a.now()))
			}
			if err == nil && i.broken != "" {
				err = exitf(exitNo, "not a token that can be decoded: %s", i.broken)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in one line of JSON")
	return cmd
}

// An inspection holds what a token says, none of it verified.
type inspection struct {
	header, payload part
	signature       int // bytes
	needs           []verifier.Tolerance
	times           []moment
	warnings        []string
	broken          string // why the token cannot be decoded, or ""
}

// A part is the header or the payload of a token.
type part struct {
	text    string
	value   jsontext.Value            // nil if the text is not strict JSON
	members map[string]jsontext.Value // nil if it is not a strict JSON object
}

// A moment is a claim that holds a time.
type moment struct {
	claim string
	at    time.Time
	words string
}

// inspect decodes a token as far as it can. It is a pure function of its arguments.
func inspect(ctx context.Context, token string, now time.Time) *inspection {
	i := new(inspection)
	if len(token) > maxInputBytes {
		i.broken = "it is longer than 1 MiB"
		return i
	}
	i.judgeForm(ctx, token)
	bare, found := stripToken(token)
	i.warnings = append(i.warnings, found...)
	i.decode(bare)
	i.readHeader()
	i.readClaims()
	i.readTimes(now)
	return i
}

func (i *inspection) warn(format string, args ...any) {
	i.warnings = append(i.warnings, fmt.Sprintf(format, args...))
}

// fail says why the token cannot be decoded. The first reason counts; later ones become warnings.
func (i *inspection) fail(format string, args ...any) {
	if i.broken == "" {
		i.broken = fmt.Sprintf(format, args...)
		return
	}
	i.warn(format, args...)
}

// judgeForm asks a verifier that knows no key. Such a verifier refuses every token. If it refuses the
// token for another reason than the key, the form of the token is wrong, and no key can help. Then
// it asks one that tolerates what this token needs.
func (i *inspection) judgeForm(ctx context.Context, token string) {
	i.needs, _ = verifier.Needs(token)
	strict := keyless(ctx, token, nil, 0)
	if reasonOf(strict) != verifier.ReasonUnknownKey {
		who := "every verifier here refuses it"
		if reasonOf(keyless(ctx, token, i.needs, maxInputBytes)) == verifier.ReasonUnknownKey {
			who = "verifiers here refuse it unless told otherwise"
		}
		i.warn("%s: %s", who, formOf(strict))
	}
	if len(i.needs) > 0 {
		i.warn("it departs from the standards: verifiers here refuse it without --tolerate %s (tolerate in the file of --config)",
			strings.ReplaceAll(joinTolerances(i.needs), ", ", ","))
	}
}

// keyless returns the error of a verifier that knows no key.
func keyless(ctx context.Context, token string, tolerate []verifier.Tolerance, maxBytes int) error {
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{{
			ID: defaultTenant, Keys: new(keystore.Static), Algorithms: keystore.Algorithms(), Tolerate: tolerate,
			AnyIssuer: true, AnyAudience: true, AllowNoExpiry: true, MixedFamilies: true,
		}},
		CacheTTL: -1, MaxTokenBytes: maxBytes,
	})
	if err != nil {
		return err
	}
	_, err = v.Verify(ctx, token)
	return err
}

// formOf returns the words for a refusal without the tenant and its algorithms, which judgeForm has
// made up.
func formOf(err error) string {
	e, ok := err.(*verifier.Error)
	switch {
	case !ok:
		return err.Error()
	case e.Reason == verifier.ReasonAlgorithm:
		return verifier.ErrAlgorithm.Error()
	}
	return e.Err.Error()
}

func reasonOf(err error) verifier.Reason {
	if e, ok := err.(*verifier.Error); ok {
		return e.Reason
	}
	return ""
}

// decode splits the token into its parts: three if it is signed (RFC 7515, section 3.1), five if it
// is encrypted (RFC 7516, section 3.1).
func (i *inspection) decode(token string) {
	if n := strings.Count(token, "."); n != 2 && n != 4 {
		i.fail("it has %s, where a signed token has three with dots between them", countParts(n+1))
		if n > 4 || token == "" {
			return
		}
	}
	parts := strings.Split(token, ".")
	i.header = i.decodePart("header", parts[0])
	switch len(parts) {
	case 5:
		i.warn("it has five parts: it is encrypted (JWE), and nobody without the key can read what it says")
		return
	case 1:
		return
	}
	i.payload = i.decodePart("payload", parts[1])
	if len(parts) > 2 {
		sig, ok := i.decodeBase64("signature", parts[2])
		i.signature = len(sig)
		switch {
		case !ok:
			i.fail("the signature is not base64url")
		case len(sig) == 0:
			i.warn("it has no signature: nobody vouches for what it says")
		}
	}
}

func countParts(n int) string {
	if n == 1 {
		return "1 part"
	}
	return fmt.Sprintf("%d parts", n)
}

func (i *inspection) decodePart(name, encoded string) (p part) {
	decoded, ok := i.decodeBase64(name, encoded)
	if !ok {
		i.fail("the %s is not base64url", name)
		return p
	}
	value := jsontext.Value(decoded)
	switch {
	case value.IsValid():
		p.text, p.value = string(decoded), value
	case value.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)):
		p.text = string(decoded)
		i.warn("the %s is not strict JSON: it has a name twice, or is not UTF-8, and readers may differ about what it says", name)
		return p
	default:
		if looksLikeJSON(decoded) {
			p.text = string(decoded) // other bytes would only be noise
		}
		i.fail("the %s is not JSON", name)
		return p
	}
	if value.Kind() != '{' {
		i.fail("the %s is not a JSON object", name)
		return p
	}
	if json.Unmarshal(value, &p.members) != nil {
		p.members = nil
	}
	return p
}

// looksLikeJSON reports whether a text that is not JSON was probably meant as an object or a list.
func looksLikeJSON(text []byte) bool {
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	return utf8.Valid(text) && len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

// unverifiedHeader returns the parameters of a token's header, or nil if it cannot be read.
func unverifiedHeader(token string) map[string]jsontext.Value {
	encoded, _, _ := strings.Cut(token, ".")
	return new(inspection).decodePart("header", encoded).members
}

// decodeBase64 decodes every common spelling of base64. It warns unless encoded is base64url without
// padding (RFC 7515, section 2).
func (i *inspection) decodeBase64(name, encoded string) (decoded []byte, ok bool) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err == nil && !strings.ContainsAny(encoded, "\r\n") {
		return decoded, true
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(encoded)
	decoded, err = base64.RawURLEncoding.DecodeString(urlSafe)
	if err != nil {
		return nil, false
	}
	i.warn("the %s is not spelled as base64url without padding must be", name)
	return decoded, true
}

// readHeader warns about parameters of the header that are dangerous, or that verifiers here refuse
// (RFC 7515, section 4.1; RFC 8725).
func (i *inspection) readHeader() {
	header := i.header.members
	if header == nil {
		return
	}
	if alg, ok := textOf(header["alg"]); ok && strings.EqualFold(alg, "none") {
		i.warn(`alg is "none": the token is not signed, and must never be accepted`)
	}
	if _, ok := header["crit"]; ok {
		i.warn("the header has crit: it asks for extensions, and no verifier here understands any")
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c"} {
		if _, ok := header[name]; ok {
			i.warn("the header brings its own key along (%s): a verifier must not use it, and those here never read it", name)
		}
	}
}

// readClaims warns about missing claims, and about names that readers may mistake for a registered
// claim.
func (i *inspection) readClaims() {
	claims := i.payload.members
	if claims == nil {
		return
	}
	if _, ok := claims["exp"]; !ok {
		i.warn("it has no exp: it would never end, and verifiers here refuse it unless told otherwise")
	}
	for _, registered := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti"} {
		for name := range claims {
			if name != registered && strings.EqualFold(name, registered) {
				i.warn("the name of claim %q differs from %q only by case: verifiers here refuse it", name, registered)
			}
		}
	}
}

// readTimes puts the dates of the payload into words.
func (i *inspection) readTimes(now time.Time) {
	for _, claim := range []string{"iat", "nbf", "exp"} {
		value, ok := i.payload.members[claim]
		if !ok {
			continue
		}
		at, ok := jwt.NumericDate(string(value))
		if !ok {
			i.warn("%s is not a time: want a number of seconds since 1970, below 2^53", claim)
			continue
		}
		i.times = append(i.times, moment{claim, at, inWords(claim, at, now)})
		if at.Year() > 5000 {
			i.warn("%s is in the year %d: is it in milliseconds? It must be in seconds", claim, at.Year())
		}
	}
}

func inWords(claim string, at, now time.Time) string {
	words := since(at, now)
	switch {
	case claim == "exp" && !now.Before(at):
		return "expired " + words
	case claim == "nbf" && now.Before(at):
		return words + ": not yet valid"
	case claim == "iat" && now.Before(at):
		return words + ": issued in the future"
	}
	return words
}

func textOf(v jsontext.Value) (s string, ok bool) {
	return s, v.Kind() == '"' && json.Unmarshal(v, &s) == nil
}
