package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/rotation/rediskeys"
)

const envRedisUser = "KEYTURN_REDIS_USER"

// A redisLink says how Redis is connected to, beside its URL: the names of files, and what they
// are called on the command line or in the file of --config.
type redisLink struct {
	caFile, certFile, keyFile, serverName string
	passwordFile, sentinelPasswordFile    string
	minVersion                            string
	name                                  func(part string) string
}

// The parts of a redisLink, as the flags end. The fields of the file of --config are called otherwise.
const (
	partCA               = "ca-file"
	partCert             = "cert-file"
	partKey              = "key-file"
	partServerName       = "server-name"
	partMinVersion       = "min-version"
	partPassword         = "password-file"
	partSentinelPassword = "sentinel-password-file"
)

// sentinelPassFile is the flag of partSentinelPassword. A longer name would make the help wider than a
// terminal.
const sentinelPassFile = "sentinel-pass-file"

// linkFlags are the flags of a redisLink.
type linkFlags struct {
	caFile, certFile, keyFile, serverName, passwordFile, sentinelPasswordFile *option[string]
}

func newLinkFlags() linkFlags {
	return linkFlags{newPath(), newPath(), newPath(), newText("NAME", ""), newPath(), newPath()}
}

// A namedFlag is a flag without its dashes, and what the help says of it.
type namedFlag struct {
	name, usage string
	flag        *option[string]
}

func (l *linkFlags) all() []namedFlag {
	return []namedFlag{
		{"redis-" + partCA, "with rediss: the authorities to trust, in PEM (default: the system's)", l.caFile},
		{"redis-" + partCert, "with rediss: our certificate, in PEM; read at each connection", l.certFile},
		{"redis-" + partKey, "with rediss: its private key, in PEM; read at each connection", l.keyFile},
		{"redis-" + partServerName, "with rediss: the name in the certificates of Redis and its Sentinels", l.serverName},
		{"redis-" + partPassword, "the file of the password of Redis (default: " + envRedisPassword + ")", l.passwordFile},
		{sentinelPassFile, "the file of the password of the Sentinels", l.sentinelPasswordFile},
	}
}

func (l *linkFlags) register(cmd *cobra.Command) {
	for _, f := range l.all() {
		cmd.Flags().Var(f.flag, f.name, f.usage)
	}
}

// given returns the names of the flags that were given, without dashes.
func (l *linkFlags) given() []string {
	var names []string
	for _, f := range l.all() {
		if f.flag.given {
			names = append(names, f.name)
		}
	}
	return names
}

// words returns the flags that were given, for a command that a person pastes.
func (l *linkFlags) words() []string {
	var words []string
	for _, f := range l.all() {
		if f.flag.given {
			words = append(words, "--"+f.name, f.flag.value)
		}
	}
	return words
}

func (l *linkFlags) link() redisLink {
	return redisLink{
		caFile: l.caFile.value, certFile: l.certFile.value, keyFile: l.keyFile.value, serverName: l.serverName.value,
		passwordFile: l.passwordFile.value, sentinelPasswordFile: l.sentinelPasswordFile.value,
		name: func(part string) string {
			if part == partSentinelPassword {
				return "--" + sentinelPassFile
			}
			return "--redis-" + part
		},
	}
}

// redisAt returns the URL of a Redis, with the user and the password of the environment in it, and how
// to connect. It reads the files once, so that a wrong one is an error before anything is done.
func (a *app) redisAt(rawURL string, l redisLink) (string, rediskeys.Options, error) {
	var o rediskeys.Options
	config, err := a.redisTLS(&l)
	if err != nil {
		return "", o, err
	}
	o.TLS = config
	if config != nil && !strings.HasPrefix(strings.ToLower(rawURL), "rediss") {
		return "", o, usagef("%s goes with TLS: write rediss in place of redis in the URL of Redis", l.name(l.firstOfTLS()))
	}
	if o.Credentials, err = a.passwordOf(l.name(partPassword), l.passwordFile); err != nil {
		return "", o, err
	}
	if o.SentinelCredentials, err = a.passwordOf(l.name(partSentinelPassword), l.sentinelPasswordFile); err != nil {
		return "", o, err
	}
	if rawURL, err = a.redisLogin(rawURL, o.Credentials != nil); err != nil {
		return "", o, err
	}
	if tellsPassword(rawURL, o.Credentials != nil || o.SentinelCredentials != nil) {
		a.note("the password of Redis goes over the network in clear: use rediss://, and TLS in Redis")
	}
	return rawURL, o, nil
}

// redisLogin returns the URL of a Redis with the user and the password of the environment in it. With a
// file, the password stays out of it.
func (a *app) redisLogin(rawURL string, fromFile bool) (string, error) {
	user, userSet := a.env(envRedisUser)
	password, passwordSet := a.env(envRedisPassword)
	if !userSet {
		user = ""
	}
	if !passwordSet || fromFile {
		password = ""
	}
	switch {
	case user != "" && password == "" && !fromFile && !hasPassword(rawURL): // the client would be the default user
		return "", usagef("%s is set, and there is no password for that user: set %s, or give --redis-%s", envRedisUser, envRedisPassword, partPassword)
	case user == "" && password == "":
		return rawURL, nil
	}
	return withLogin(rawURL, user, password)
}

// passwordOf returns a function that reads a password from a file each time, so that a new password needs
// no restart. It returns nil without a file. Of a pipe the password is read once.
func (a *app) passwordOf(name, path string) (rediskeys.CredentialsFunc, error) {
	if path == "" {
		return nil, nil
	}
	f, err := a.readFile(name, path, "the password of Redis", holdsSecret)
	if err != nil {
		return nil, err
	}
	password, err := parsePassword(name, f.text)
	if err != nil {
		return nil, usagef("%v", err)
	}
	if !f.info.Mode().IsRegular() {
		return func(context.Context) (string, string, error) { return "", password, nil }, nil
	}
	return func(context.Context) (string, string, error) {
		text, err := f.again(holdsSecret)
		if err != nil {
			return "", "", fmt.Errorf("cannot read the file of %s: %w", name, err)
		}
		password, err := parsePassword(name, text)
		return "", password, err
	}, nil
}

// again reads a file once more. It waits for no writer of a pipe that took the file's place.
func (f *inputFile) again(use fileUse) ([]byte, error) {
	now, err := openInput(f.path, openRegular)
	if err != nil {
		return nil, causeOf(err)
	}
	now.name = f.name
	return now.text, now.refuse(use)
}

// parsePassword returns the password in a file. One line end at the end is not part of it. What editors
// and consoles of Windows add, and a second line, would be a wrong password that looks right, so it is
// refused. The error holds nothing of the file.
func parsePassword(name string, text []byte) (string, error) {
	const takes = "it takes the password alone, in one line"
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(text, []byte(mark)) {
			return "", fmt.Errorf("the file of %s begins with a byte order mark: save it as plain text; %s", name, takes)
		}
	}
	text = dropLineEnd(text)
	switch {
	case len(text) == 0:
		return "", fmt.Errorf("the file of %s is empty: %s", name, takes)
	case bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("the file of %s has a line end or another control character in the password: %s", name, takes)
	}
	return string(text), nil
}

// firstOfTLS returns the first part that is about TLS and was given, or "".
func (l *redisLink) firstOfTLS() string {
	for _, f := range []struct{ part, value string }{
		{partCA, l.caFile}, {partCert, l.certFile}, {partKey, l.keyFile}, {partServerName, l.serverName}, {partMinVersion, l.minVersion},
	} {
		if f.value != "" {
			return f.part
		}
	}
	return ""
}

// redisTLS returns how TLS is spoken with Redis, or nil if nothing was said of it.
func (a *app) redisTLS(l *redisLink) (*tls.Config, error) {
	if l.firstOfTLS() == "" {
		return nil, nil
	}
	c := &tls.Config{ServerName: l.serverName, MinVersion: tls.VersionTLS12}
	switch l.minVersion {
	case "", "1.2":
	case "1.3":
		c.MinVersion = tls.VersionTLS13
	default:
		return nil, usagef("%s: want \"1.2\" or \"1.3\"", l.name(partMinVersion))
	}
	if l.caFile != "" {
		f, err := a.readFile(l.name(partCA), l.caFile, "the certificates of authorities, in PEM", holdsRules)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(f.text) {
			return nil, usagef("the file of %s has no certificate in PEM", f.name)
		}
	}
	return c, a.clientCertificate(l, c)
}

// clientCertificate lets c show the certificate of l. A certificate is renewed every few weeks or days,
// so its files are read at each connection.
func (a *app) clientCertificate(l *redisLink, c *tls.Config) error {
	switch {
	case l.certFile == "" && l.keyFile == "":
		return nil
	case l.keyFile == "":
		return usagef("%s is missing: the private key of %s", l.name(partKey), l.name(partCert))
	case l.certFile == "":
		return usagef("%s is missing: the certificate whose key %s is", l.name(partCert), l.name(partKey))
	}
	cert, err := a.readFile(l.name(partCert), l.certFile, "a certificate, in PEM", holdsRules)
	if err != nil {
		return err
	}
	key, err := a.readFile(l.name(partKey), l.keyFile, "a private key, in PEM", holdsSecret)
	if err != nil {
		return err
	}
	first, err := tls.X509KeyPair(cert.text, key.text)
	if err != nil {
		return usagef("the files of %s and %s: %s", cert.name, key.name, strings.TrimPrefix(err.Error(), "tls: "))
	}
	again := cert.info.Mode().IsRegular() && key.info.Mode().IsRegular()
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if !again {
			return &first, nil
		}
		return readPair(cert, key)
	}
	return nil
}

// errPairChanges reports that two files were written one after the other, and were read in between.
var errPairChanges = errors.New("the certificate and the key for Redis do not belong together")

func readPair(cert, key *inputFile) (*tls.Certificate, error) {
	certPEM, err := cert.again(holdsRules)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file of %s: %w", cert.name, err)
	}
	keyPEM, err := key.again(holdsSecret)
	if err != nil {
		return nil, fmt.Errorf("cannot read the file of %s: %w", key.name, err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errPairChanges, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &pair, nil
}

// redisTLSConfig is redis_tls in the file of --config.
type redisTLSConfig struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
	MinVersion string `yaml:"min_version"`
}

// link returns how the file of --config says that Redis is connected to. The password of the environment
// beats the file.
func (c *ringsConfig) link(a *app) redisLink {
	l := redisLink{
		passwordFile: c.RedisPasswordFile, sentinelPasswordFile: c.SentinelPasswordFile,
		caFile: c.RedisTLS.CAFile, certFile: c.RedisTLS.CertFile, keyFile: c.RedisTLS.KeyFile, serverName: c.RedisTLS.ServerName, minVersion: c.RedisTLS.MinVersion,
	}
	if _, ok := a.env(envRedisPassword); ok {
		l.passwordFile = ""
	}
	l.name = func(part string) string {
		field := strings.ReplaceAll(part, "-", "_")
		switch part {
		case partPassword:
			field = "redis_password_file"
		case partSentinelPassword:
		default:
			field = "redis_tls." + field
		}
		return cmp.Or(c.section, "rings") + "." + field + " in the file of --config"
	}
	return l
}

// files returns the paths of the files, which are seen from the folder of the configuration.
func (c *ringsConfig) files() []*string {
	return []*string{
		&c.KEKFile, &c.Snapshot, &c.RedisPasswordFile, &c.SentinelPasswordFile,
		&c.RedisTLS.CAFile, &c.RedisTLS.CertFile, &c.RedisTLS.KeyFile,
	}
}

// linkHint says what to type where an error of Redis names a part of a redisLink.
func linkHint(kind error) string {
	for _, h := range []struct {
		kind  error
		parts []string
	}{
		{rediskeys.ErrAuthority, []string{partCA}},
		{rediskeys.ErrServerName, []string{partServerName}},
		{rediskeys.ErrClientCertificate, []string{partCert, partKey}},
	} {
		if kind != h.kind {
			continue
		}
		flags, fields := slices.Clone(h.parts), slices.Clone(h.parts)
		for i, part := range h.parts {
			flags[i], fields[i] = "--redis-"+part, strings.ReplaceAll(part, "-", "_")
		}
		return fmt.Sprintf("; %s, or rings.redis_tls %s in the file of serve", strings.Join(flags, " and "), strings.Join(fields, " and "))
	}
	return ""
}
