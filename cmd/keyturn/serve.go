package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/verifier"
)

// A serveCommand holds the flags of "keyturn serve".
type serveCommand struct {
	*app
	addr, admin  *option[string]
	secretFile   *option[string]
	configFile   *option[string]
	upstream     *option[*url.URL]
	firstByte    *option[time.Duration]
	forwardToken bool
	snapshot     *option[string]
	allowNoExp   bool
	ring         ringFlags
	tenants, aud *list[string]
	iss          *option[string]
	bootstrap    bool
	tolerate     *list[[]verifier.Tolerance]
	maxToken     *option[int]
	policy       policyFlags
	drain        *option[time.Duration]
	checkOnly    bool
	json         bool
	log          *slog.Logger

	good map[string]*folderTenant // by file of tenants_dir: the last good tenant
	next map[string]*folderTenant // the same, of the reading in progress
	kept map[string]error         // by file of tenants_dir that cannot be used: why
}

func newServeCommand(a *app) *serveCommand {
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	own := *a
	own.remark, own.seen = func(text string) { log.Warn(text) }, new(seenFiles)
	return &serveCommand{
		app: &own, addr: newText("ADDRESS", ":4111"), admin: newText("ADDRESS", ""), secretFile: newPath(), configFile: newPath(), snapshot: newPath(), upstream: newUpstream(), firstByte: newFirstByte(),
		ring: newRingFlags(), tenants: &list[string]{kind: "TENANT", parse: parseTenant}, aud: newTexts("AUDIENCE"), iss: newText("ISSUER", ""),
		policy: newPolicyFlags(), log: log, tolerate: newTolerances(), maxToken: newMaxTokenBytes(), drain: newDrain(),
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
	f.Var(s.admin, "admin", "where to say which tenant is ready, and why not, such as 127.0.0.1:9102")
	f.Var(s.drain, "drain", "how long to serve on at SIGTERM (default 5s with --admin, else 0s)")
	f.Var(s.upstream, "upstream", "the service that gets the requests with a good token, such as http://127.0.0.1:3000")
	f.Var(s.firstByte, "first-byte", "how long that service may take to begin its answer; 0s: for ever (default 30s)")
	f.BoolVar(&s.forwardToken, "forward-token", false, "let that service have the token too, for auth of its own")
	f.BoolVar(&s.checkOnly, "check", false, "say whether it would start: nothing is opened on the network")
	f.BoolVar(&s.json, "json", false, "with --check: say so as JSON")
	f.Var(s.configFile, "config", "the YAML file that says whose tokens are good")
	f.Var(s.secretFile, "secret-file", "the file that holds the shared secret")
	f.BoolVar(&s.allowNoExp, "allow-no-exp", false, "with a secret: accept tokens without exp, which never end")
	s.ring.register(cmd, "the Redis that has the rings")
	f.Var(s.tenants, "tenant", `with --redis: whose ring is served; may be given several times (default "default")`)
	f.Var(s.iss, "iss", "with --redis: the issuer that tokens must have; {tenant} in it is the tenant's name")
	f.Var(s.aud, "aud", "with --redis: the audience of tokens; if given several times, one of them")
	f.Var(s.tolerate, "tolerate", "departures from the standards to let in, such as numeric-sub,zip")
	f.Var(s.maxToken, "max-token-bytes", "the longest token accepted, in bytes, at most 1048576")
	f.Var(s.snapshot, "snapshot", "with --redis: the file to start from while Redis is away")
	f.BoolVar(&s.bootstrap, "bootstrap", false, "with --redis: make the rings that are not there, with the policy that follows")
	s.policy.register(cmd)
	return cmd
}

// An offer is what serve is about to do: the server's configuration, and the words for it.
type offer struct {
	server   server.Config
	warnings []string
	intro    func(*server.Server) string
	file     *configFile // of --config; nil without it
	reloads  bool        // at SIGHUP, which otherwise ends the server as it ends a terminal's programs
}

func (s *serveCommand) run(ctx context.Context) error {
	if s.json && !s.checkOnly {
		return usagef("--json goes with --check")
	}
	o, err := s.offer()
	if err != nil {
		return s.unchecked(err)
	}
	if s.checkOnly {
		return s.check(o)
	}
	s.followConfig(o)
	return s.serve(ctx, o)
}

// offer returns what the command line asks for.
func (s *serveCommand) offer() (*offer, error) {
	o, err := s.mode()
	if err != nil {
		return nil, err
	}
	if err := s.setListen(o); err != nil { // flags beat the file
		return nil, err
	}
	s.setDrain(o)
	if s.maxToken.given {
		o.server.MaxTokenBytes = s.maxToken.value
	}
	if err := s.addUpstream(o); err != nil {
		return nil, err
	}
	o.server.Logger, o.server.Now = s.log, s.now
	o.server.Fixed = fixedSettings(o)
	return o, nil
}

// mode chooses the mode of the server by the flags and the environment.
func (s *serveCommand) mode() (*offer, error) {
	if s.configFile.given {
		return s.offerFile()
	}
	if err := s.ring.fromEnv(s.app, true, s.secretFile.given); err != nil {
		return nil, err
	}
	if s.ring.redis.given {
		return s.offerRings()
	}
	if flag := s.ringFlag(); flag != "" {
		return nil, usagef("--%s goes with --redis, which says where the rings are", flag)
	}
	secret, err := s.secret(s.secretFile)
	switch {
	case err != nil:
		return nil, err
	case secret != nil:
		return s.offerSecret(secret)
	case s.allowNoExp:
		return nil, usagef("--allow-no-exp goes with a secret: give --secret-file, or set %s; the demo's own tokens all have exp", envSecrets)
	case len(s.tolerate.values) > 0:
		return nil, usagef("--tolerate goes with a secret or --redis: the demo's own tokens need none")
	}
	return s.offerDemo()
}

// ringFlag returns the name of a flag that was given and means nothing without --redis, or "".
func (s *serveCommand) ringFlag() string {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"kek-file", s.ring.kekFile.given}, {"realm", s.ring.realm.given}, {"other-realm", len(s.ring.otherRealms.values) > 0}, {"tenant", len(s.tenants.values) > 0}, {"iss", s.iss.given}, {"aud", len(s.aud.values) > 0}, {"bootstrap", s.bootstrap}, {"snapshot", s.snapshot.given},
	} {
		if f.given {
			return f.name
		}
	}
	if names := s.ring.link.given(); len(names) > 0 {
		return names[0]
	}
	return s.policy.given()
}

// serve runs the server that o describes, until ctx ends or the process receives a signal.
func (s *serveCommand) serve(ctx context.Context, o *offer) error {
	stop := func() {}
	o.server.Notify = func(e server.Event) {
		switch e.(type) {
		case server.Stopping, server.Draining:
			stop() // from here on, a signal ends the process at once
		}
		fmt.Fprint(s.stdout, eventText(e))
	}
	if o.reloads {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		o.server.Reload.Signal = hangups
	}
	srv, err := server.New(ctx, o.server)
	if err != nil {
		return s.openError(o, err)
	}
	for _, warning := range o.warnings {
		s.log.Warn(warning)
	}
	signal.Ignore(syscall.SIGPIPE) // the reader of the output may go away: that must not end the server
	ctx, stop = endAtSignal(ctx)
	defer stop()
	fmt.Fprint(s.stdout, o.intro(srv)+unixIntro(o)+s.adminIntro(srv)+"\nCtrl-C ends it\n")
	ballast := newBallast(debug.SetMemoryLimit(-1))
	defer runtime.KeepAlive(ballast)
	if err := srv.Run(ctx); err != nil {
		return exitf(exitNo, "the server ended: %v", err)
	}
	return nil
}

// newBallast returns memory that nothing writes to, so that it takes none of the machine's. The garbage
// collector counts it: it lets the heap grow by as many bytes as are in use, and a server with a small
// heap would collect every few milliseconds. With 16 MiB more it collects a sixth as often, and may hold
// as much garbage: https://blog.twitch.tv/en/2019/04/10/go-memory-ballast-how-i-learnt-to-stop-worrying-and-love-the-heap/
//
// With a GOMEMLIMIT it returns nil, since the limit counts the ballast too.
func newBallast(limit int64) []byte {
	if limit != math.MaxInt64 {
		return nil
	}
	return make([]byte, 16<<20)
}

// endAtSignal returns a context that ends when the process receives SIGINT or SIGTERM. The cause tells
// them apart: at SIGINT a user waits at a terminal, and at SIGTERM a load balancer may need some time.
// stop gives the signals their own effect back.
func endAtSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, end := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-ctx.Done():
		case sig := <-received:
			cause := context.Canceled
			if sig == syscall.SIGTERM {
				cause = server.ErrTerminated
			}
			end(cause)
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		end(context.Canceled)
		<-done
	}
}

// offerSecret offers the mode with a shared secret: everyone who has the secret makes good tokens.
func (s *serveCommand) offerSecret(secret *secret) (*offer, error) {
	key, err := secret.key(keystore.ID{Tenant: defaultTenant}, keystore.HS256)
	if err != nil {
		return nil, err
	}
	keys, err := newStatic(key)
	if err != nil {
		return nil, err
	}
	tenant := server.Tenant{Rules: verifier.Tenant{
		ID: defaultTenant, Keys: keys, Algorithms: []keystore.Algorithm{keystore.HS256},
		AnyIssuer: true, AnyAudience: true, AllowNoExpiry: s.allowNoExp, Tolerate: slices.Concat(s.tolerate.values...),
	}}
	o := &offer{server: server.Config{Tenants: []server.Tenant{tenant}, Hint: sharedSecretHint}, reloads: s.secretFile.given}
	o.warnings = []string{"iss and aud are not checked: a token that was made with this secret for anything else opens this API too"}
	if s.allowNoExp {
		o.warnings = append(o.warnings, "tokens without exp are accepted: they never end")
	}
	o.intro = func(srv *server.Server) string { return s.sharedSecretIntro(endpoint(srv.Endpoint()), secret.source) }
	return o, nil
}

// offerRings offers the mode with the rings of --redis.
func (s *serveCommand) offerRings() (*offer, error) {
	if err := s.checkTenants(); err != nil {
		return nil, err
	}
	rings, err := s.flagRings()
	if err != nil {
		return nil, err
	}
	o := &offer{server: server.Config{Rings: rings}, reloads: true, warnings: s.ringWarnings()}
	for _, id := range s.tenantNames() {
		o.server.Tenants = append(o.server.Tenants, server.Tenant{Ring: true, Rules: verifier.Tenant{
			ID: id, Issuer: s.issuerOf(id), Audiences: s.aud.values,
			AnyIssuer: s.issuerOf(id) == "", AnyAudience: len(s.aud.values) == 0, Tolerate: slices.Concat(s.tolerate.values...),
		}})
	}
	o.intro = func(srv *server.Server) string { return s.ringIntro(endpoint(srv.Endpoint()), o.server.Tenants) }
	return o, nil
}

// checkTenants refuses tenants whose tokens could not be told apart.
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

// flagRings returns where the flags say that the rings are.
func (s *serveCommand) flagRings() (*server.Rings, error) {
	if s.secretFile.given {
		return nil, usagef("--redis and --secret-file: give one of them")
	}
	if err := checkRealms("--other-realm", s.ring.realm.value, s.ring.otherRealms.values); err != nil {
		return nil, err
	}
	rings := &server.Rings{Snapshot: s.snapshot.value, Hint: noRingHint(s.bootstrap), Realm: s.ring.realm.value, OtherRealms: s.ring.otherRealms.values}
	if err := s.setKEKs(rings, "--kek-file", s.ring.kekFile.value); err != nil {
		return nil, err
	}
	if name := s.policy.given(); name != "" && !s.bootstrap {
		return nil, usagef("--%s is for the rings that --bootstrap makes; those that are there have their own policy", name)
	}
	if s.bootstrap {
		policy, err := s.policy.policy()
		if err != nil {
			return nil, err
		}
		rings.Bootstrap = &policy
	}
	var err error
	rings.URL, rings.Link, err = s.redisAt(s.ring.redis.value, s.ring.link.link())
	return rings, err
}

// tenantNames returns the tenants whose rings are served.
func (s *serveCommand) tenantNames() []string {
	if len(s.tenants.values) == 0 {
		return []string{defaultTenant}
	}
	return s.tenants.values
}

// tenantMark stands for the tenant's name in --iss.
const tenantMark = "{tenant}"

// issuerOf returns the iss that a tenant's tokens must have, or "" if every iss will do. Several
// tenants are told apart by it, so that then each has one.
func (s *serveCommand) issuerOf(tenant string) string {
	if !s.iss.given && len(s.tenantNames()) > 1 {
		return tenant
	}
	return strings.ReplaceAll(s.iss.value, tenantMark, tenant)
}

func (s *serveCommand) ringWarnings() []string {
	var warnings []string
	if !s.iss.given && len(s.tenantNames()) == 1 {
		warnings = append(warnings, "iss is not checked: --iss says which issuer to expect")
	}
	if len(s.aud.values) == 0 {
		warnings = append(warnings, "aud is not checked: --aud says which audience to expect")
	}
	return append(warnings, s.unusedSecrets("with --redis, only the rings open the API")...)
}

// unusedSecrets returns a warning for each variable with a secret that serve does not use, and why.
func (s *serveCommand) unusedSecrets(why string, used ...string) []string {
	var warnings []string
	for _, name := range []string{envSecret, envMastraSecret} {
		if _, ok := s.env(name); ok && !slices.Contains(used, name) {
			warnings = append(warnings, name+" is not used: "+why)
		}
	}
	return warnings
}
