package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/verifier"
)

// issuerForm is what the help says of keys over HTTP.
const issuerForm = `--issuer-url asks an OpenID Connect issuer where its keys are (the issuer that it
names must be that URL, byte for byte), --jwks-url reads a JWK Set. Both must be https,
without a redirect, and lead to a public address; --allow-loopback allows this machine,
and http there, --allow-cidr a network of your own, and --allow-http http in it. Proxies
of the environment are not used: --proxy names one. --ca-file or SSL_CERT_FILE names
authorities of your own. The token of --bearer-token-file goes to that URL's host alone.
It takes 10 seconds at most.`

// issuerTime is how long the command waits for the keys of an issuer. One attempt takes at most half
// of it.
const issuerTime = 10 * time.Second

// issuerFlags say where to read keys over HTTP.
type issuerFlags struct {
	jwksURL, issuerURL *option[string]
	allowLoopback      bool
	allowCIDR          *list[netip.Prefix]
	allowHTTP          bool
	proxy              *option[*url.URL]
	caFile, tokenFile  *option[string]
}

func newIssuerFlags() issuerFlags {
	newURL := func() *option[string] { return &option[string]{kind: "URL", parse: parseText} }
	return issuerFlags{
		jwksURL: newURL(), issuerURL: newURL(), allowCIDR: &list[netip.Prefix]{kind: "CIDR", parse: parseCIDR},
		proxy: &option[*url.URL]{kind: "URL", parse: parseProxy}, caFile: newPath(), tokenFile: newPath(),
	}
}

func (i *issuerFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(i.jwksURL, "jwks-url", "the URL of a JWK Set that has the keys")
	f.Var(i.issuerURL, "issuer-url", "the OpenID Connect issuer that has the keys; --iss says to check iss")
	f.BoolVar(&i.allowLoopback, "allow-loopback", false, "with --jwks-url or --issuer-url: allow this machine, and http there")
	f.Var(i.allowCIDR, "allow-cidr", "the same: allow a private network, such as 10.0.0.0/8; may be repeated")
	f.BoolVar(&i.allowHTTP, "allow-http", false, "the same: allow http in the networks of --allow-cidr")
	f.Var(i.proxy, "proxy", "the same: the proxy to go through, such as http://proxy.example:3128")
	f.Var(i.caFile, "ca-file", "the same: the file of the authorities to trust instead of the system's, as PEM")
	f.Var(i.tokenFile, "bearer-token-file", "the same: the file of a bearer token that the issuer wants to see")
}

func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("want a network such as 10.0.0.0/8, 192.168.1.7/32 or fd00::/8")
	}
	return p, nil
}

func (i *issuerFlags) given() bool { return i.jwksURL.given || i.issuerURL.given }

// flag returns the name of the flag that was given.
func (i *issuerFlags) flag() string {
	if i.issuerURL.given {
		return "--issuer-url"
	}
	return "--jwks-url"
}

// setting returns the name of a flag that was given and that says how to reach an issuer, or "".
func (i *issuerFlags) setting() string {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"--allow-cidr", len(i.allowCIDR.values) > 0}, {"--allow-loopback", i.allowLoopback}, {"--allow-http", i.allowHTTP},
		{"--proxy", i.proxy.given}, {"--ca-file", i.caFile.given}, {"--bearer-token-file", i.tokenFile.given},
	} {
		if f.given {
			return f.name
		}
	}
	return ""
}

// flagSource returns where the flags say that the keys are.
func (c *verifyCommand) flagSource() (*server.Source, error) {
	i := &c.issuer
	flag := func(setting string) string { return "--" + strings.ReplaceAll(setting, "_", "-") }
	r := reach{
		allowLoopback: i.allowLoopback, allowHTTP: i.allowHTTP, allowCIDR: i.allowCIDR.values,
		proxy: i.proxy.value, caFile: i.caFile.value, tokenFile: i.tokenFile.value,
		name: flag, file: flag,
	}
	source, err := c.app.source(i.issuerURL.value, i.jwksURL.value, r, jwks.SourceConfig{})
	if err != nil && !errors.As(err, new(*exitError)) {
		err = usagef("%v", err)
	}
	return source, err
}

// runIssuer judges a token by the keys of an issuer. If the keys cannot be read, the answer is that
// the command cannot tell.
func (c *verifyCommand) runIssuer(ctx context.Context, arg string) error {
	if c.kid.given {
		return usagef("--kid names a shared secret; the keys of %s have their own names", c.issuer.flag())
	}
	from, err := c.flagSource()
	if err != nil {
		return err
	}
	client := jwks.New(from.ClientConfig(c.clientConfig()))
	ctx, cancel := context.WithTimeout(ctx, issuerTime)
	defer cancel()
	defer client.Close(ctx) // ends the attempt that is under way

	source, err := from.Open(client, c.tenant.value)
	if err == nil {
		err = firstAttempt(ctx, source)
	}
	if err != nil {
		return c.noIssuer(err)
	}
	c.source = source
	for _, s := range source.Status().Skipped {
		c.note("skipped %s", printable(s.String(), false))
	}
	c.noteIrregular(source.Status().Irregular)
	return c.judge(ctx, source, arg)
}

// noteIrregular tells of keys that serve, and that other readers may refuse.
func (c *verifyCommand) noteIrregular(all []jwks.Irregular) {
	for _, i := range all {
		c.note("irregular %s: it serves, but other readers may refuse it", printable(i.String(), false))
	}
}

// clientConfig returns how the issuer is reached. --now does not apply to the issuer's certificate:
// the connection is made today.
func (c *verifyCommand) clientConfig() jwks.Config {
	cfg := c.network
	cfg.Now = c.runningClock()
	secure := new(tls.Config)
	if cfg.TLS != nil {
		secure = cfg.TLS.Clone()
	}
	secure.Time = c.now
	cfg.TLS = secure
	return cfg
}

// runningClock returns a clock that starts at --now and runs. The keys of a source expire, so they
// must live by the clock by which the token is judged.
func (c *verifyCommand) runningClock() func() time.Time {
	if !c.at.given {
		return c.now
	}
	begun := c.now()
	return func() time.Time { return c.at.value.Add(c.now().Sub(begun)) }
}

// lookEvery is how often firstAttempt checks whether the attempt has failed.
const lookEvery = 10 * time.Millisecond

// firstAttempt waits until source has its keys, or has failed once to get them. A user at a terminal
// learns more from the reason of the failure than from a second attempt.
func firstAttempt(ctx context.Context, source *jwks.Source) error {
	for {
		waiting, cancel := context.WithTimeout(ctx, lookEvery)
		err := source.WaitReady(waiting)
		cancel()
		if err == nil {
			return nil
		}
		if status := source.Status(); status.Failures > 0 {
			return status.LastError
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// noIssuer says why the keys could not be read. If the URL can never yield keys, the command line is
// wrong.
func (c *verifyCommand) noIssuer(err error) error {
	e := new(jwks.Error)
	if !errors.As(err, &e) {
		return c.cannotTell(fmt.Sprintf("no keys from %s within %v", c.issuer.flag(), issuerTime))
	}
	text := printable(issuerText(e, settingFlag), false)
	if e.Step == jwks.StepURL {
		return usagef("%s: %s", c.issuer.flag(), text)
	}
	if advice := c.issuer.advice(e); advice != "" {
		c.note("%s", advice)
	}
	return c.cannotTell(fmt.Sprintf("no keys from %s: %s: %s", c.issuer.flag(), server.StepName(e.Step), text))
}

// cannotTell answers that the command cannot tell whether the token is good.
func (c *verifyCommand) cannotTell(text string) error {
	if !c.json {
		return exitf(exitCannotTell, "%s", text)
	}
	c.note("%s", text)
	return c.answer(exitCannotTell, verifier.ReasonUnavailable, text)
}

// advice returns what to try after a failed attempt, or "".
func (i *issuerFlags) advice(e *jwks.Error) string {
	switch e.Step {
	case jwks.StepHeader:
		return "the file of --bearer-token-file must hold one token, which this user can read"
	case jwks.StepDNS:
		return "is the host's name right, and does this machine resolve names?"
	case jwks.StepAddress:
		return "keys are read from public addresses only; --allow-cidr allows the network of an issuer of your own, such as --allow-cidr 10.0.0.0/8, --allow-loopback this machine, and a file of --jwks needs no network"
	case jwks.StepConnect:
		return "is the port right, is something listening there, and does a firewall let it through? Proxies of the environment are not used: --proxy names one"
	case jwks.StepTLS:
		return "is it https that listens there? Its certificate must be in date, for that host, and of an authority that this machine trusts: --ca-file, or SSL_CERT_FILE, names others"
	case jwks.StepResponse, jwks.StepBody:
		return "something answers there, but not as a web server should: try it with curl"
	case jwks.StepRedirect:
		return "give the URL that it leads to in the end: curl -I shows the next one"
	case jwks.StepStatus:
		return i.statusAdvice(e)
	case jwks.StepDiscovery:
		return "--issuer-url must be the issuer as it calls itself, a slash at the end included, with a jwks_uri that is https; if you know where the keys are, --jwks-url"
	case jwks.StepSet:
		return i.setAdvice()
	}
	return ""
}

func (i *issuerFlags) statusAdvice(e *jwks.Error) string {
	switch {
	case e.Status == 401 || e.Status == 403:
		return "the issuer wants to know who asks: --bearer-token-file gives it a token"
	case e.Status >= 500 || e.Status == 429:
		return "it is there, but does not serve now: try again later"
	case i.issuerURL.given:
		return "is the URL right? An issuer answers at its URL with /.well-known/openid-configuration after it"
	}
	return "is the URL right? It must answer a plain GET with the JWK Set; for an issuer, --issuer-url finds it"
}

func (i *issuerFlags) setAdvice() string {
	if i.issuerURL.given {
		return "the issuer's jwks_uri does not lead to a JWK Set of public keys: only who runs it can mend that"
	}
	return `the URL must lead to a JWK Set, {"keys":[...]}, of public keys; for an issuer, --issuer-url finds it`
}

// heldKeys lists the keys that a source has, for a user whose token names another one.
func heldKeys(status jwks.Status) string {
	const most = 10
	var names []string
	for _, k := range status.Keys {
		name := quoteKID(k.KID)
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// noteIssuer tells the user that the iss of a good token is not the issuer whose keys verified it.
// Without --iss that is not an error.
func (c *verifyCommand) noteIssuer(t *verifier.Token) {
	if c.issuer.issuerURL.given && !c.iss.given && t.Issuer() != c.issuer.issuerURL.value {
		c.note("the token's iss is %s, which is not --issuer-url: with --iss, the token would be refused", quoteShort(t.Issuer()))
	}
}

// failedAgain returns why the issuer, whose keys were read, could not be asked about another key.
func (c *verifyCommand) failedAgain() []string {
	e := new(jwks.Error)
	if !errors.As(c.source.Status().LastError, &e) {
		return nil
	}
	return []string{"the issuer has keys, but could not be asked about this one: " + server.StepName(e.Step) + ": " + printable(issuerText(e, settingFlag), false)}
}
