// Package freeport finds ports of loopback for programs that tests start. A test of ours that listens
// itself asks for port 0. A program that has to be told its port is told one of these.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Systems give an outgoing connection a port from 32 768 on (Linux) or higher. Such a port that is free now
// may be taken at any time, by a client of the same test.
const first, end = 10_000, 32_768

// Port returns a port that is free now, as is the port that lies beside further on, and that no outgoing
// connection takes. Another process may still take it: try again then.
func Port(beside int) (int, error) {
	for range 200 {
		port := first + rand.IntN(end-first-beside)
		if isFree(port) && isFree(port+beside) {
			return port, nil
		}
	}
	return 0, errors.New("freeport: no free port on 127.0.0.1")
}

// Addr returns an address of loopback with such a port.
func Addr() (string, error) {
	port, err := Port(0)
	return Join(port), err
}

// Join returns the address of a port of loopback.
func Join(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(port int) bool {
	l, err := net.Listen("tcp", Join(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
