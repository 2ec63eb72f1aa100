package server

import (
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Connections that the kernel has completed, and that were not accepted yet, are served after the
// listener is closed. Later ones are refused.
func TestPatientListener(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it takes no connections from a listener there
	}
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(t.TempDir(), "s")
		}
		inner, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		l := patiently(inner)
		var clients []net.Conn
		for range 3 {
			c, err := net.Dial(network, inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write([]byte("x"))
			clients = append(clients, c)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial(network, inner.Addr().String()); err == nil {
			c.Close()
			t.Error("a connection after the end was accepted")
		}
		for _, client := range clients {
			c, err := l.Accept()
			if err != nil {
				t.Fatalf("%s: a connection from before the end was lost: %v", network, err)
			}
			b := make([]byte, 1)
			if _, err := c.Read(b); err != nil || b[0] != 'x' {
				t.Errorf("%s: read %q, %v", network, b, err)
			}
			c.Write([]byte("y"))
			c.Close()
			client.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := client.Read(b); err != nil || b[0] != 'y' {
				t.Errorf("%s: the client read %q, %v", network, b, err)
			}
		}
		if _, err := l.Accept(); err == nil {
			t.Error("Accept does not report the end")
		}
		l.Close()
	}
}
