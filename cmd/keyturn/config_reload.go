package main

import (
	"fmt"
	"log/slog"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
)

// configFiles reads the configuration of a running server again, with everything that its files name.
// It implements [server.Files].
type configFiles struct {
	start *serveCommand // that read the configuration at the start
	seen  *seenFiles    // by the last Load
	said  *saidLines
	good  map[string]*folderTenant // in use
	next  map[string]*folderTenant // of the last Load
}

// followConfig has a server follow the files that o was read from. One of them may be a pipe: then
// none is read again.
func (s *serveCommand) followConfig(o *offer) {
	switch {
	case o.file == nil && !s.secretFile.given:
	case s.seen.pipe != "":
		s.note("the configuration is not read again: the file of %s is a pipe", s.seen.pipe)
	default:
		f := &configFiles{start: s, seen: s.seen, good: s.next, said: &saidLines{lines: make(map[server.Sum]bool)}}
		o.server.Reload.Files, o.server.Reload.Sum, o.server.Reload.Warnings = f, f.seen.sum(), o.warnings
	}
}

// Sum implements [server.Files].
func (f *configFiles) Sum() server.Sum { return f.seen.again() }

// Load implements [server.Files].
func (f *configFiles) Load() (server.Loaded, error) {
	s, own := *f.start, *f.start.app
	s.app, s.good, s.ring = &own, f.good, newRingFlags() // the environment is read again
	s.log = slog.New(onceHandler{f.start.log.Handler(), f.said})
	own.remark = func(text string) { s.log.Warn(text) }
	own.seen, own.reloading = new(seenFiles), true
	o, err := s.offer()
	f.seen, f.next = own.seen, s.next
	loaded := server.Loaded{Sum: f.seen.sum(), Kept: s.kept}
	if err == nil {
		loaded.Config, loaded.Warnings = o.server, o.warnings
		loaded.Explain = func(err error) error { return s.openError(o, err) }
	}
	return loaded, err
}

// Used implements [server.Files].
func (f *configFiles) Used() { f.good = f.next }

// fixedSettings returns the settings that a reload does not change, with their values, by name.
func fixedSettings(o *offer) map[string]string {
	cfg := &o.server
	fixed := map[string]string{
		"listen.addr": cfg.Addr, "listen.unix": cfg.Unix, "listen.unix_mode": cfg.UnixMode.String(), "admin.addr": cfg.Admin,
		"upstream": fmt.Sprint(cfg.Upstream != nil), "listen.tls": fmt.Sprint(cfg.TLS != nil), "max_token_bytes": fmt.Sprint(cfg.MaxTokenBytes),
		"metrics.tenants": fmt.Sprint(cfg.Metrics.TenantLimit),
	}
	if o.file == nil {
		return fixed
	}
	if c := o.file.Rings; c != nil {
		addFixed(fixed, "rings", c)
	}
	fixed["revocations"] = fmt.Sprint(o.file.Revocations != nil)
	if c := o.file.Revocations; c != nil {
		own := *c
		own.Clients, own.Logout = nil, nil // which a reload changes
		addFixed(fixed, "revocations", &own)
	}
	return fixed
}

// addFixed adds the members of a section of the file.
func addFixed(fixed map[string]string, section string, c any) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return
	}
	// Each member at the top begins with a line that is not indented. Its content follows.
	name := ""
	for line := range strings.Lines(string(text)) {
		if before, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "-") {
			name = section + "." + before
		}
		fixed[name] += line
	}
}
