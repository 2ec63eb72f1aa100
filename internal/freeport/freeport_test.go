package freeport

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// No port is one that the system gives to an outgoing connection: a client would take it before the program
// that was told it listens.
func TestPortIsNoOutgoingOne(t *testing.T) {
	lowest := 49_152 // RFC 6335, section 6
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if lowest, err = strconv.Atoi(strings.Fields(string(text))[0]); err != nil {
			t.Fatal(err)
		}
	}
	for _, beside := range []int{0, 10_000} {
		for range 200 {
			port, err := Port(beside)
			if err != nil {
				t.Fatal(err)
			}
			if port < 1024 || port+beside >= lowest {
				t.Fatalf("Port(%d) = %d, and the system gives ports from %d on to clients", beside, port, lowest)
			}
		}
	}
}

// A port on which a program listens is not free.
func TestTakenPort(t *testing.T) {
	addr, err := Addr()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if isFree(port) {
		t.Errorf("%s counts as free", addr)
	}
	l.Close()
	if !isFree(port) {
		t.Errorf("%s does not count as free", addr)
	}
}
