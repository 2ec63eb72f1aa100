package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/verifier"
)

// demoAudience is the "aud" of the demo's tokens.
const demoAudience = "demo"

// A demoTenant is a tenant of the demo, and who its tokens are for.
type demoTenant struct {
	id, user string
	alg      keystore.Algorithm
}

var demoTenants = []demoTenant{{"acme", "ann", keystore.HS256}, {"globex", "bob", keystore.ES256}}

// demoPoll and demoDeadline are for a Freshness of 6s.
const (
	demoPoll     = time.Second
	demoDeadline = 800 * time.Millisecond
)

// demoPolicy turns keys while one watches.
func demoPolicy(alg keystore.Algorithm) rotation.Policy {
	p := rotation.Policy{
		Algorithm: alg, Every: 30 * time.Second, Propagation: 15 * time.Second, MaxTokenTTL: 2 * time.Minute, Leeway: 30 * time.Second,
		ClockSkew: time.Second, Freshness: 6 * time.Second, Dwell: 2 * time.Second, SignFor: 12 * time.Second,
	}
	if !alg.Symmetric() {
		p.ReaderStaleness = 8 * time.Second
	}
	return p
}

// demo is the mode without a secret: two tenants that trust nobody's tokens but
// their own, with rings on a Redis that lives in this process.
func (s *serveCommand) demo(ctx context.Context) (_ *service, err error) {
	r := &rings{log: s.log, now: s.now}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := r.embed(); err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	keks, err := rotation.NewKEKs(secret)
	if err != nil {
		return nil, err
	}
	for _, t := range demoTenants {
		r.tenants = append(r.tenants, t.id)
	}
	if err := r.open(ctx, rotation.Config{KEKs: keks, TrustFirstRead: true, Poll: demoPoll, Deadline: demoDeadline}); err != nil {
		return nil, err
	}
	for _, t := range demoTenants {
		if err := r.rotator.Create(ctx, t.id, demoPolicy(t.alg)); err != nil {
			return nil, ringError(err)
		}
	}
	d := &demonstration{serveCommand: s, rings: r}
	r.issuer = d.issuer
	d.verifier, err = verifier.New(verifier.Config{MaxTokenBytes: maxTokenBytes, Now: s.now})
	if err != nil {
		return nil, err
	}
	d.signer, err = rotation.NewSigner(r.keyring, rotation.SignerConfig{Issuer: d.issuer, Audience: func(string) []string { return []string{demoAudience} }})
	if err != nil {
		return nil, err
	}
	o := &service{verifier: d.verifier, hint: demoHint, rings: r, ready: r.ready, close: r.close, intro: func(at endpoint) (string, error) { return d.intro(ctx, at) }}
	o.background = []func(context.Context){r.turn, r.watch, d.freshTokens}
	return o, nil
}

// embed starts a Redis in this process, on a loopback port. It is as good as the
// process lives, and enough for a demo.
func (r *rings) embed() error {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return exitf(exitCannotTell, "the demo's Redis cannot listen on a loopback port: %v", err)
	}
	r.closers = append(r.closers, func() error { m.Close(); return nil })
	st, err := openStore("redis://" + m.Addr())
	if err != nil {
		return err
	}
	r.store = st
	r.closers = append(r.closers, st.close)
	return nil
}

// demoHint is for a user who comes with the token of another run, one of another
// maker, or one that has ended.
func demoHint(bad *verifier.Error) string {
	switch bad.Reason {
	case verifier.ReasonUnknownTenant, verifier.ReasonUnknownKey, verifier.ReasonSignature:
		return "the demo accepts only the tokens that it printed since it started; for tokens of your own, set " + envSecrets
	case verifier.ReasonExpired:
		return "the demo's tokens are good for 2 minutes: take the newest that it has printed"
	}
	return ""
}

// A demonstration tells a user what to try.
type demonstration struct {
	*serveCommand
	rings    *rings
	verifier *verifier.Verifier
	signer   *rotation.Signer
	at       endpoint
}

// issuer is the URL by which a program on this machine finds a tenant's keys. It is
// known once the server listens.
func (d *demonstration) issuer(tenant string) string { return d.at.url + "/" + tenant }

// admit gives the verifier the tenants.
func (d *demonstration) admit() error {
	var tenants []verifier.Tenant
	for _, t := range demoTenants {
		tenants = append(tenants, verifier.Tenant{
			ID: t.id, Keys: d.rings.keyring, Algorithms: []keystore.Algorithm{t.alg}, Issuer: d.issuer(t.id), Audiences: []string{demoAudience},
		})
	}
	return d.verifier.Put(tenants...)
}

func (d *demonstration) token(ctx context.Context, t demoTenant) (string, error) {
	return d.signer.Sign(ctx, t.id, map[string]any{"sub": t.user})
}

func (d *demonstration) intro(ctx context.Context, at endpoint) (string, error) {
	d.at = at
	if err := d.admit(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("keyturn serve: a demo with two tenants, whose keys turn every 30 seconds\n")
	b.WriteString(at.addresses())
	fmt.Fprintf(&b, "  %s/globex%s   the public keys of globex; acme has none\n", at.url, jwksPath)
	fmt.Fprintf(&b, "  %s   the issuer of globex, by which readers find those keys\n", d.issuer("globex"))
	var first string
	for _, t := range demoTenants {
		token, err := d.token(ctx, t)
		if err != nil {
			return "", ringError(err)
		}
		if first == "" {
			first = token
		}
		fmt.Fprintf(&b, "\na token of tenant %s (%s), good for 2 minutes:\n%s\n", t.id, t.alg, token)
	}
	fmt.Fprintf(&b, "\ntry it:\n%s\n", at.curl(first))
	fmt.Fprintf(&b, "\na token of globex as others check it:\n%s\n",
		fromClone("verify --allow-loopback --alg ES256 --issuer-url "+d.issuer("globex")+" TOKEN"))
	fmt.Fprintf(&b, "\nthe lines below tell when a key turns; with a secret in %s you make tokens yourself:\n%s\n",
		envSecrets, fromClone("serve --help"))
	return b.String(), nil
}

// freshEvery is shorter than a token of the demo lives.
const freshEvery = 90 * time.Second

// freshTokens keeps a command that works on the screen.
func (d *demonstration) freshTokens(ctx context.Context) {
	tick := time.NewTicker(freshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if token, err := d.token(ctx, demoTenants[0]); err == nil {
			fmt.Fprintf(d.stdout, "\nthe same with a fresh token:\n%s\n", d.at.curl(token))
		}
	}
}
