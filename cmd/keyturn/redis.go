package main

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// tellsPassword reports whether a client of a URL sends a password without TLS to another machine. A
// name other than localhost counts as one, whatever it resolves to. A URL that is none tells nothing:
// package rediskeys refuses it. fromFile says that the password is not in the URL.
func tellsPassword(rawURL string, fromFile bool) bool {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if base, _, _ := strings.Cut(strings.ToLower(scheme), "-"); !ok || base != "redis" {
		return false
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(rest, "/")
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i], authority[i+1:]
	}
	_, password, _ := strings.Cut(user, ":")
	values, _ := url.ParseQuery(query)
	if !fromFile && password == "" && values.Get("sentinel_password") == "" {
		return false
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if !isLoopback(host) {
			return true
		}
	}
	return false
}

// isLoopback reports whether HOST or HOST:PORT is this machine.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
