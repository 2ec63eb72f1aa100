package server

import (
	"net"
	"testing"
)

func TestEndpoint(t *testing.T) {
	for ip, want := range map[string]Endpoint{
		"0.0.0.0":   {"http://localhost:4111", true},
		"::":        {"http://localhost:4111", true},
		"127.0.0.1": {"http://127.0.0.1:4111", false},
		"::1":       {"http://[::1]:4111", false},
	} {
		if got := endpointOf(&net.TCPAddr{IP: net.ParseIP(ip), Port: 4111}); got != want {
			t.Errorf("endpointOf(%s) = %v, want %v", ip, got, want)
		}
	}
}
