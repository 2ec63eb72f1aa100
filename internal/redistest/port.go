package redistest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// busOffset is the distance from a server's port to its Cluster bus port.
const busOffset = 10_000

// freePort returns a port that is free now, as is the port busOffset above it. Both
// are outside the range that the system uses for outgoing connections, because those
// may take a port at any time.
func freePort() (int, error) {
	for range 200 {
		port := 10_000 + rand.IntN(32_768-10_000-busOffset)
		if isFree(port) && isFree(port+busOffset) {
			return port, nil
		}
	}
	return 0, errors.New("redistest: no free port")
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
