package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/rotation"
)

const importLong = `import makes a tenant's first ring with a key that signs its tokens today, so that no
user is logged out. That key signs at once, and what it has signed stays good. The
next key is made under the policy of the flags; its algorithm is that of the imported
key unless --alg says otherwise, and all verifiers must list both then.

The next key takes over after --every, on the date of --rotate-at, or with --hold when
"keyturn keys rotate" says so and not before. Programs that sign with the old key may
go on until then. The answer says when they must stop, and until when their tokens are
accepted: that follows from --longest-token, the longest life of a token of the key.

The key is a shared secret (--secret-file), or a private key in PEM or as a JWK
(--key-file). For a secret, say how its tokens name it: --kid with their kid, or
--no-kid if they have none. For another key the default is the kid of the JWK, or the
thumbprint of the key (RFC 7638). ` + secretForm + `

It is refused (exit code 1) if the tenant has a ring, or had one that was destroyed
(--again imports all the same), if the next key cannot be known
before --rotate-at, and, unless --force is given, while a live instance does not verify
the algorithm of the next key. A secret that is shorter than the hash of its algorithm
cannot sign: "keyturn keys accept --weak" lets it verify for a while.

` + waitHelp + `

With --json it prints the receipt that "keyturn keys revoke --help" describes, with
"adopted", the kid of the imported key. "tokens_until" is when its last token ends. If
it is refused: {"ok":false,"error","from"}, where "from" is the earliest date for
--rotate-at if that is too soon, or else null.`

// An importCommand has the flags of "keyturn keys import".
type importCommand struct {
	*keysCommand
	secretFile, keyFile, kid *option[string]
	noKID, hold              bool
	keyAlg                   *option[keystore.Algorithm]
	longest                  *option[time.Duration]
	rotateAt                 *option[time.Time]
}

func newKeysImport(a *app) *cobra.Command {
	c, cmd := newKeysCommand(a, "import --redis URL (--secret-file FILE | --key-file FILE) --longest-token DURATION", "Make a tenant's first ring with the key that it signs with today", importLong,
		`  keyturn keys import --redis redis://localhost:6379 --tenant acme --kek-file kek \
    --secret-file old.secret --no-kid --longest-token 30d --hold
  keyturn keys import --redis redis://localhost:6379 --tenant acme --kek-file kek \
    --key-file old.pem --longest-token 12h --rotate-at 2026-12-24T03:00:00Z --alg ES256`)
	i := &importCommand{keysCommand: c, secretFile: newPath(), keyFile: newPath(), kid: &option[string]{kind: "KID", parse: parseKID},
		keyAlg:  &option[keystore.Algorithm]{kind: "ALG", shown: "HS256, or what fits the key", parse: parseAlgorithm},
		longest: &option[time.Duration]{kind: "DURATION", parse: parseLong}, rotateAt: newDate()}
	c.policy = newPolicyFlags()
	c.policy.alg.shown = "as the old key"
	f := cmd.Flags()
	f.Var(i.secretFile, "secret-file", "the file that holds the shared secret")
	f.Var(i.keyFile, "key-file", "the file that holds the private key, in PEM or as a JWK")
	f.Var(i.kid, "kid", "the kid that the key's tokens carry")
	f.BoolVar(&i.noKID, "no-kid", false, "the key's tokens carry no kid")
	f.Var(i.keyAlg, "key-alg", "what the imported key signs with")
	f.Var(i.longest, "longest-token", "the longest life of a token of the key, at most 400d; required")
	f.Var(i.rotateAt, "rotate-at", "when the next key takes over: RFC 3339 or Unix seconds (default: after --every)")
	f.BoolVar(&i.hold, "hold", false, `the next key takes over with "keyturn keys rotate", and not before`)
	f.BoolVar(&c.again, "again", false, "also for a tenant whose ring was destroyed")
	f.BoolVar(&c.force, "force", false, "import the key though a live instance does not verify the algorithm of the next one")
	c.policy.register(cmd)
	c.waits.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return i.run(cmd.Context()) }
	return cmd
}

func parseKID(s string) (string, error) {
	s, err := parseText(s)
	if err == nil && len(s) > keystore.MaxKIDBytes {
		err = fmt.Errorf("has %d bytes: want at most %d", len(s), keystore.MaxKIDBytes)
	}
	return s, err
}

// check refuses flags that contradict each other or are missing.
func (i *importCommand) check() error {
	switch {
	case i.secretFile.given == i.keyFile.given:
		return usagef("give the key to import with --secret-file, a shared secret, or with --key-file, a private key in PEM or as a JWK")
	case i.kid.given && i.noKID:
		return usagef("--kid and --no-kid: give one of them")
	case i.secretFile.given && !i.kid.given && !i.noKID:
		return usagef(`say how tokens name the secret: --kid KID, or --no-kid if they carry none; "keyturn inspect TOKEN" shows the kid of a token`)
	case !i.longest.given:
		return usagef("--longest-token is missing: how long does the longest token of the key live? Tokens of the key are accepted for that long after it stops signing")
	case i.longest.value < time.Second || i.longest.value > 400*24*time.Hour:
		return usagef("--longest-token is %s: want 1s to 400d", short(i.longest.value))
	case i.hold && i.rotateAt.given:
		return usagef("--hold and --rotate-at: give one of them")
	}
	return i.waits.check()
}

// read returns the key that the flags name.
func (i *importCommand) read() (*privateKey, error) {
	if i.secretFile.given {
		s, err := i.fileSecret("--secret-file", i.secretFile.value)
		if err != nil {
			return nil, err
		}
		return i.fits(newPrivateKey(s.bytes(), "", keystore.HS256), "--secret-file")
	}
	f, err := i.readFile("--key-file", i.keyFile.value, "a private key in PEM or as a JWK", holdsSecret)
	if err != nil {
		return nil, err
	}
	k, err := readPrivateKey(f.text)
	if err != nil {
		return nil, usagef("the file of --key-file %v", err)
	}
	return i.fits(k, "--key-file")
}

// fits returns k with the algorithm of --key-alg, if it is a key for that.
func (i *importCommand) fits(k *privateKey, flag string) (*privateKey, error) {
	if i.keyAlg.given {
		k.algorithm = i.keyAlg.value
	}
	material, isSecret := k.material().([]byte)
	switch {
	case isSecret != k.algorithm.Symmetric():
		return nil, usagef("%s: the key is none for %s (--key-alg)", flag, k.algorithm)
	case !isSecret:
		return k, nil // package rotation judges it
	}
	if size := k.algorithm.Hash().Size(); len(material) < size {
		return nil, usagef(`%s: a secret of %s is too short to sign %s, which needs %d (RFC 7518, section 3.2); "keyturn keys accept --weak" lets it verify for at most 90 days, while another key signs`, flag, countOf(len(material), "byte"), k.algorithm, size)
	}
	_, err := newSecret(material, flag).key(keystore.ID{}, k.algorithm)
	return k, err
}

func (i *importCommand) run(ctx context.Context) error {
	if err := i.check(); err != nil {
		return err
	}
	key, err := i.read()
	if err != nil {
		return err
	}
	if !i.policy.alg.given {
		i.policy.alg.value = key.algorithm
	}
	policy, err := i.policy.policy()
	if err != nil {
		return err
	}
	imported := rotation.Imported{KID: i.kid.value, NoKID: i.noKID, Algorithm: key.algorithm, Key: key.material(), Longest: i.longest.value}
	if imported.KID == "" && !i.noKID {
		imported.KID = key.kid
	}
	return i.answer(i.adopt(ctx, imported, policy))
}

// adopt makes the ring, and shows the receipt.
func (i *importCommand) adopt(ctx context.Context, imported rotation.Imported, policy rotation.Policy) error {
	return i.withRotator(ctx, settleRing, func(ctx context.Context, o *opened) error {
		waiting, stop := interruptible(ctx)
		defer stop()
		receipt, forced, err := i.apply(ctx, o.rotator, func(ctx context.Context, r *rotation.Rotator, opts ...rotation.Option) (rotation.Receipt, error) {
			return r.Adopt(ctx, i.tenant.value, imported, policy, rotation.AdoptOptions{RotateAt: i.rotateAt.value, Hold: i.hold}, append(opts, i.making()...)...)
		})
		if err != nil {
			return err
		}
		return i.show(waiting, o, receipt, policy.WithDefaults(), forced)
	})
}

// show prints the receipt of the import, and waits until the live instances have the new ring.
func (i *importCommand) show(ctx context.Context, o *opened, receipt rotation.Receipt, timing rotation.Policy, forced *rotation.RefusedError) error {
	p := &receiptPrinter{watcher: watcher{keysCommand: i.keysCommand, rotator: o.rotator, receipt: receipt, timing: timing, limit: i.waits.limit(timing)}}
	if forced != nil {
		p.noteForced(forced)
	}
	err := p.print(ctx)
	state, looked := (&settler{store: o.store, tenant: i.tenant.value}).look(context.WithoutCancel(ctx))
	if e := (*exitError)(nil); looked == nil && !state.hasRing && (err == nil || errors.As(err, &e)) {
		return lostRing()
	}
	return err
}

// importedText is the receipt of an import, for people.
func (p *receiptPrinter) importedText() string {
	var b strings.Builder
	r, now := &p.receipt, p.now()
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "key %q of tenant %s is imported, and signs now\n", r.Adopted, quoteShort(r.Tenant))
	line("committed", "%s", r.CommittedAt.UTC().Format(milliseconds))
	if r.SignsFrom.IsZero() {
		line("next key", `%q, which waits until "keyturn keys rotate"`, r.Minted)
		line("old programs", "that sign with the imported key must stop before that rotation;")
		line("", "its receipt says until when their tokens are accepted")
		return b.String()
	}
	line("next key", "%q, to sign %s (%s)", r.Minted, since(r.SignsFrom, now), stamp(r.SignsFrom))
	line("old programs", "that sign with the imported key must stop before %s;", stamp(r.SignsFrom))
	line("", "their tokens end to be accepted at %s", stamp(r.TokensUntil))
	return b.String()
}
