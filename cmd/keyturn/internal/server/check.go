package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/keyturn/keyturn/keystore"
	"github.com/keyturn/keyturn/keystore/jwks"
	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier"
)

// Check returns why [New] would refuse cfg, or nil. It opens nothing on the network, so it does not tell
// whether an address is free, nor whether a Redis or an issuer answers. Its error is an [Error].
func Check(cfg Config) error {
	cfg = cfg.withDefaults()
	for _, check := range []func(*Config) error{checkAuthz, checkListeners} {
		if err := check(&cfg); err != nil {
			return err
		}
	}
	if err := checkSources(&cfg); err != nil {
		return err
	}
	if err := checkAuthz(&cfg); err != nil {
		return err
	}
	if cfg.Rings != nil && cfg.Demo == nil {
		if err := checkStore(cfg.Rings.URL, cfg.Rings.Link); err != nil {
			return err
		}
	}
	if c := cfg.Revocations; c != nil {
		if err := checkStore(c.URL, c.Link); err != nil {
			return err
		}
	}
	return checkRules(&cfg)
}

// checkStore refuses a URL of Redis that cannot be used.
func checkStore(url string, link rediskeys.Options) error {
	client, err := rediskeys.OpenWith(url, link) // dials with the first command
	if err != nil {
		return &Error{Part: PartStore, Err: err}
	}
	client.Close()
	return nil
}

// maxSocketPath is the longest name of a socket that all Unix systems take.
const maxSocketPath = 103

func checkListeners(cfg *Config) error {
	for _, l := range []struct {
		part Part
		addr string
	}{{PartListener, cfg.Addr}, {PartAdmin, cfg.Admin}} {
		if l.addr == "" {
			continue
		}
		_, port, err := net.SplitHostPort(l.addr)
		if err == nil {
			if n, numberErr := strconv.ParseUint(port, 10, 16); numberErr != nil || n > 65535 {
				err = errors.New("the port is no number up to 65535")
			}
		}
		if err != nil {
			return &Error{Part: l.part, Err: err}
		}
	}
	if cfg.Unix == "" {
		return nil
	}
	if len(cfg.Unix) > maxSocketPath {
		return &Error{Part: PartUnix, Err: errors.New("its path is longer than 103 bytes")}
	}
	if info, err := os.Stat(filepath.Dir(cfg.Unix)); err != nil || !info.IsDir() {
		return &Error{Part: PartUnix, Err: errors.New("its folder does not exist")}
	}
	return nil
}

// errChecking ends each attempt to reach an issuer.
var errChecking = errors.New("only the configuration is checked")

// checkSources opens the sources on a network that does not exist.
func checkSources(cfg *Config) error {
	offline := *cfg
	offline.Issuers = jwks.Config{
		LookupNetIP: func(context.Context, string, string) ([]netip.Addr, error) { return nil, errChecking },
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errChecking },
	}
	t, err := new(tenants).openNext(&offline)
	if err == nil {
		t.closeBut(new(tenants))
	}
	return err
}

// unknownKeys stands for keys that are known when the server runs.
type unknownKeys struct{}

// Lookup implements [keystore.KeyStore].
func (unknownKeys) Lookup(keystore.ID, keystore.Algorithm) ([]*keystore.Key, error) {
	return nil, keystore.ErrUnavailable
}

func checkRules(cfg *Config) error {
	rules := make([]verifier.Tenant, len(cfg.Tenants))
	for i := range cfg.Tenants {
		rules[i] = checkedRules(cfg, &cfg.Tenants[i])
	}
	v, err := verifier.New(verifier.Config{Tenants: rules, MaxTokenBytes: cfg.MaxTokenBytes, Now: cfg.Now})
	if err != nil {
		return &Error{Part: PartRules, Err: err}
	}
	_, err = revocationHandlers(cfg, nil, v, func(t *Tenant) verifier.Tenant { return checkedRules(cfg, t) })
	return err
}

// checkedRules returns the rules of a tenant, with keys that stand for those which are not known yet.
func checkedRules(cfg *Config, t *Tenant) verifier.Tenant {
	rules := t.Rules
	if t.Ring {
		rules.Algorithms, rules.MixedFamilies = keystore.Algorithms(), true
	}
	if t.Ring || t.Source != nil {
		rules.Keys = unknownKeys{}
	}
	if cfg.Demo != nil {
		rules.Issuer = t.Rules.ID
	}
	return rules
}
