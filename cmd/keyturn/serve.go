package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

const serveLong = `serve starts a small API, of which everything under /api/ wants a good token in
the request's Authorization header. It calls nobody, and answers with what it
knows of the caller.

Without flags it is a demo: two tenants, acme and globex, whose keys turn every 30
seconds, on a Redis that lives and ends with it. It prints a token for each, and the
curl command to paste.

With a secret in KEYTURN_SECRET or MASTRA_JWT_SECRET, or in the file of
--secret-file, it accepts the HS256 tokens of whoever has the secret, with the
answers of a Mastra server that uses MastraJwtAuth. A secret has at least 32
bytes; make one with: openssl rand -base64 32
` + secretForm + `

With --redis it accepts the tokens of the rings of --tenant, and turns their keys: let
it run in several places. It makes no ring unless --bootstrap is given; "keyturn keys
create" does. With several tenants, --iss must name one by {tenant}; without --iss, a
token's iss is its tenant's name.
` + ringForm + `

` + configForm + `

/healthz answers 200 while the server runs, /readyz 200 while it can verify tokens,
and says of each tenant why not. /TENANT/.well-known/jwks.json has a tenant's public
keys, if it signs with any but HS*; /TENANT/.well-known/openid-configuration tells
readers of them, if --iss is the URL under which they reach /TENANT, such as
https://auth.example/{tenant}. Without /TENANT it is about the only tenant with such keys.

There is no CORS: it is for curl and for other servers. For pages in a browser,
put a proxy in front that adds it.

Ctrl-C ends it when the requests in flight are done, or after 10 seconds; a
second Ctrl-C at once.`

const serveExample = `  keyturn serve
  keyturn serve --config keyturn.yaml
  MASTRA_JWT_SECRET="$(cat secret)" keyturn serve --addr 127.0.0.1:8080
  keyturn serve --redis redis://localhost:6379 --kek-file kek --tenant acme --tenant globex \
    --iss https://{tenant}.example --aud api --bootstrap`

// A serveCommand holds the flags of "keyturn serve".
type serveCommand struct {
	*app
	addr, secretFile *option[string]
	config           *option[string]
	allowNoExp       bool
	ring             ringFlags
	tenants, aud     *list[string]
	iss              *option[string]
	bootstrap        bool
	policy           policyFlags
	grace            time.Duration // for the requests in flight, at the end
	poll, deadline   time.Duration // of the rings' store; 0: as their policies say
	log              *slog.Logger
}

func newServeCommand(a *app) *serveCommand {
	return &serveCommand{
		app: a, addr: newText("ADDRESS", ":4111"), secretFile: newPath(), config: newPath(),
		ring: newRingFlags(), tenants: &list[string]{kind: "TENANT", parse: parseTenant}, aud: newTexts("AUDIENCE"), iss: newText("ISSUER", ""),
		policy: newPolicyFlags(), grace: 10 * time.Second, log: slog.New(slog.NewTextHandler(a.stderr, nil)),
	}
}

func newServe(a *app) *cobra.Command {
	s := newServeCommand(a)
	cmd := &cobra.Command{
		Use:     "serve [--addr ADDRESS] [--config FILE | --secret-file FILE | --redis URL]",
		Short:   "Start a small API that only a good token opens",
		Long:    serveLong,
		Example: serveExample,
		Args:    wantNothing(addrHint),
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.Var(s.addr, "addr", "where to listen: HOST:PORT, or :PORT for every address here")
	f.Var(s.config, "config", "the YAML file that says whose tokens are good")
	f.Var(s.secretFile, "secret-file", "the file that holds the shared secret")
	f.BoolVar(&s.allowNoExp, "allow-no-exp", false, "with a secret: accept tokens without exp, which never end")
	s.ring.register(cmd, "the Redis that has the rings")
	f.Var(s.tenants, "tenant", `with --redis: whose ring is served; may be given several times (default "default")`)
	f.Var(s.iss, "iss", "with --redis: the issuer that tokens must have; {tenant} in it is the tenant's name")
	f.Var(s.aud, "aud", "with --redis: the audience of tokens; if given several times, one of them")
	f.BoolVar(&s.bootstrap, "bootstrap", false, "with --redis: make the rings that are not there, with the policy that follows")
	s.policy.register(cmd)
	return cmd
}

// A service is what serve offers: whose tokens are good, and what the user is
// told about it.
type service struct {
	verifier   *verifier.Verifier
	rings      *rings                                           // nil if there are none
	ready      func() (all string, each map[string]tenantReady) // nil: always
	close      func()                                           // nil if nothing was opened
	warnings   []string
	intro      func(endpoint) (string, error)
	hint       func(*verifier.Error) string // what to do about a refusal, for the log
	background []func(context.Context)      // run while it serves
}

func (s *serveCommand) run(ctx context.Context) error {
	offered, err := s.offer(ctx)
	if err != nil {
		return err
	}
	if offered.close != nil {
		defer offered.close()
	}
	l, err := listen(ctx, s.addr.value)
	if err != nil {
		return err
	}
	defer l.Close()
	intro, err := offered.intro(endpointOf(l.Addr()))
	if err != nil {
		return err
	}
	return s.serve(ctx, l, offered, intro)
}

// offer finds out which of its modes is wanted.
func (s *serveCommand) offer(ctx context.Context) (*service, error) {
	if s.config.given {
		return s.onConfig(ctx)
	}
	if s.ring.redis.given {
		if err := s.checkTenants(); err != nil {
			return nil, err
		}
		return s.onRedis(ctx)
	}
	if flag := s.ringFlag(); flag != "" {
		return nil, usagef("--%s goes with --redis, which says where the rings are", flag)
	}
	secret, err := s.secret(s.secretFile)
	switch {
	case err != nil:
		return nil, err
	case secret != nil:
		return s.sharedSecret(secret)
	case s.allowNoExp:
		return nil, usagef("--allow-no-exp goes with a secret: give --secret-file, or set %s; the demo's own tokens all have exp", envSecrets)
	}
	return s.demo(ctx)
}

// ringFlag names a flag that was given and means nothing without --redis, or "".
func (s *serveCommand) ringFlag() string {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"kek-file", s.ring.kekFile.given}, {"tenant", len(s.tenants.values) > 0}, {"iss", s.iss.given}, {"aud", len(s.aud.values) > 0}, {"bootstrap", s.bootstrap},
	} {
		if f.given {
			return f.name
		}
	}
	return s.policy.given()
}

// checkTenants refuses what could not tell whose a token is.
func (s *serveCommand) checkTenants() error {
	seen := make(map[string]bool)
	for _, tenant := range s.tenants.values {
		if seen[tenant] {
			return usagef("--tenant %s is given twice", quoteShort(tenant))
		}
		seen[tenant] = true
	}
	switch {
	case s.allowNoExp:
		return usagef("--allow-no-exp goes with a secret: a ring's key ends, and its tokens before it")
	case len(seen) > 1 && s.iss.given && !strings.Contains(s.iss.value, tenantMark):
		return usagef("--iss: with several tenants it must hold %s, as in https://%s.example: a token's iss says whose it is", tenantMark, tenantMark)
	}
	return nil
}

// sharedSecret is the mode in which whoever has the secret makes the tokens.
func (s *serveCommand) sharedSecret(secret *secret) (*service, error) {
	key, err := secret.key(keystore.ID{Tenant: defaultTenant}, keystore.HS256)
	if err != nil {
		return nil, err
	}
	keys, err := newStatic(key)
	if err != nil {
		return nil, err
	}
	v, err := verifier.New(verifier.Config{
		Tenants: []verifier.Tenant{{
			ID: defaultTenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
			AnyIssuer: true, AnyAudience: true, AllowNoExpiry: s.allowNoExp,
		}},
		MaxTokenBytes: maxTokenBytes,
		Now:           s.now,
	})
	if err != nil {
		return nil, usagef("%s", plain(err))
	}
	o := &service{verifier: v, hint: sharedSecretHint, warnings: []string{
		"iss and aud are not checked: a token that was made with this secret for anything else opens this API too",
	}}
	if s.allowNoExp {
		o.warnings = append(o.warnings, "tokens without exp are accepted: they never end")
	}
	o.intro = func(at endpoint) (string, error) { return s.sharedSecretIntro(at, secret.source), nil }
	return o, nil
}

func (s *serveCommand) sharedSecretIntro(at endpoint, source string) string {
	exp := " (add an exp, or start serve with --allow-no-exp)"
	if s.allowNoExp {
		exp = ""
	}
	where, sign := "in a terminal where "+source+" is set to the same secret too", "sign --claim sub=ann"
	if s.secretFile.given {
		where, sign = "with the path of that file", "sign --secret-file FILE --claim sub=ann"
	}
	return fmt.Sprintf("keyturn serve: tokens signed with the secret of %s (HS256) open the API\n", source) +
		at.addresses() +
		"\nmake a token with jwt.io's encoder" + exp + ",\nor " + where + ":\n" + fromClone(sign) + "\n" +
		"\ntry it, with the token in place of <your-jwt>:\n" + at.curl("<your-jwt>") + "\n"
}

// sharedSecretHint says what to do about the refusals that a user meets who
// comes from another maker of tokens.
func sharedSecretHint(bad *verifier.Error) string {
	if bad.Reason == verifier.ReasonUnknownKey && bad.Key.KID != "" {
		return "in shared-secret mode the secret has no name: make tokens without kid"
	}
	if bad.Reason == verifier.ReasonMissingClaim && bad.Claim == "exp" {
		return "the token has no exp and would never end; to accept such tokens, start serve with --allow-no-exp"
	}
	return ""
}

// An endpoint is where the server listens.
type endpoint struct {
	url  string // by which a program on this machine reaches it
	open bool   // on all addresses of the machine
}

func endpointOf(a net.Addr) endpoint {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return endpoint{"http://localhost:" + port, true}
	}
	return endpoint{"http://" + a.String(), false}
}

// addresses tells where the server listens, and for whom.
func (e endpoint) addresses() string {
	text := "listening on " + e.url + "\n"
	if e.open {
		port := e.url[strings.LastIndexByte(e.url, ':'):]
		text += "  on all addresses of this machine; for this machine alone: --addr 127.0.0.1" + port + "\n"
	}
	return text +
		"  " + e.url + "/api/...   everything here wants a token\n" +
		"  " + e.url + "/healthz   200 while the server runs\n" +
		"  " + e.url + "/readyz   200 while it can verify tokens\n" +
		"  there is no CORS: it is for curl and servers; for browsers, put a proxy in front\n"
}

// curl is the command of the guide that keyturn's wish began with, for this
// server and token.
func (e endpoint) curl(token string) string {
	return "curl -X POST " + e.url + `/api/agents/weatherAgent/generate` +
		` -H "Content-Type: application/json" -H "Authorization: Bearer ` + token + `"` +
		` -d '{"messages": "Weather in London"}'`
}

// addrHint is for an argument that was probably meant as a port.
func addrHint(arg string) string {
	n, err := strconv.ParseUint(strings.TrimPrefix(arg, ":"), 10, 16)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("a port goes after --addr, such as --addr :%d", n)
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("--addr: want HOST:PORT or :PORT, such as :4111 or 127.0.0.1:4111")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, usagef("port %s is in use: end the program that has it, or choose another with --addr, such as --addr :%s", port, another(port))
	case errors.Is(err, syscall.EACCES):
		return nil, usagef("not allowed to listen on port %s: choose one above 1023 with --addr, such as --addr :4111", port)
	}
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return nil, usagef("--addr: cannot listen there: %v", err)
}

// another names a port beside one that is in use.
func another(port string) string {
	if n, err := strconv.Atoi(port); err == nil && n < 65535 {
		return strconv.Itoa(n + 1)
	}
	return "4112"
}

// maxHeaderBytes has room for a token of 8 KiB and what else a proxy sends.
const maxHeaderBytes = 32 << 10

// serve answers requests until ctx ends or the process is told to. It waits for
// the requests in flight.
func (s *serveCommand) serve(ctx context.Context, l net.Listener, offered *service, intro string) error {
	// Whoever reads the output may go away: that must not end the server.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	log := s.log
	defer background(ctx, offered.background)()
	srv := &http.Server{
		Handler:           newHandler(offered, log),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	for _, warning := range offered.warnings {
		log.Warn(warning)
	}
	fmt.Fprint(s.stdout, intro+"\nCtrl-C ends it\n")

	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return exitf(exitNo, "the server ended: %v", err)
	case <-ctx.Done():
	}
	stop() // from here on, a signal ends the process at once
	fmt.Fprintf(s.stdout, "shutting down: waiting up to %v for requests in flight; Ctrl-C again ends at once\n", s.grace)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.grace)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		log.Warn("requests in flight were cut off")
		srv.Close()
	}
	<-ended
	fmt.Fprintln(s.stdout, "stopped")
	return nil
}
