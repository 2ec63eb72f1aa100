package main

import (
	"strings"
	"testing"
)

// A password goes over the network in clear without TLS. The command says so, and never shows it.
func TestPlainPasswordIsNoted(t *testing.T) {
	const note = "the password of Redis goes over the network in clear: use rediss://"
	for _, tt := range []struct {
		url, password string
		noted         bool
	}{
		{"redis://redis.internal:6379", "hush", true},
		{"redis://u@10.1.2.3", "hush", true},
		{"redis://u:hush@10.1.2.3:6379/1", "", true},
		{"REDIS://:hush@h", "", true},
		{"redis-cluster://localhost:1,h:2", "hush", true},
		{"redis-sentinel://127.0.0.1:1,[2001:db8::1]:2/name", "hush", true},
		{"redis-sentinel://h/name?sentinel_password=hush", "", true},
		{"redis://redis.internal:6379", "", false},
		{"redis://u@redis.internal:6379", "", false},
		{"rediss://u@10.1.2.3", "hush", false},
		{"rediss-cluster://u@h:1,h:2", "hush", false},
		{"redis://localhost:6379", "hush", false},
		{"redis://u@LOCALHOST", "hush", false},
		{"redis://127.1.2.3:6379/0", "hush", false},
		{"redis://[::1]:6379", "hush", false},
		{"redis://[::ffff:127.0.0.1]", "hush", false},
		{"redis-sentinel://localhost,127.0.0.1:1/name?sentinel_password=hush", "", false},
		{"redis://127.0.0.1.example:6379", "hush", true},
		{"not a URL", "hush", false}, // and refused elsewhere
	} {
		var said strings.Builder
		a := &app{stderr: &said, env: envPassword(tt.password)}
		if _, _, err := a.redisAt(tt.url, noLink()); err != nil {
			t.Errorf("%s: %v", tt.url, err)
		}
		if strings.Contains(said.String(), note) != tt.noted || strings.Contains(said.String(), "hush") {
			t.Errorf("%s with password %q: %q, want a note: %v", tt.url, tt.password, said.String(), tt.noted)
		}
	}
}

// serve warns of it in its log.
func TestServeLogsPlainPassword(t *testing.T) {
	var log strings.Builder
	s := newServeCommand(&app{stderr: &log, env: envPassword("hush")})
	if _, _, err := s.redisAt("redis://redis.internal", noLink()); err != nil || !strings.Contains(log.String(), `level=WARN msg="the password of Redis goes over`) {
		t.Errorf("error = %v, log = %s", err, log.String())
	}
}

func noLink() redisLink { flags := newLinkFlags(); return flags.link() }

func envPassword(password string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		if name != envRedisPassword {
			return "", false
		}
		return password, password != ""
	}
}
