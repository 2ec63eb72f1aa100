package drill

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// A link that is cut ends its connections on both sides, and carries none until it heals.
func TestLink(t *testing.T) {
	var l Link
	var far []net.Conn
	dial := l.Dial(func(context.Context, string, string) (net.Conn, error) {
		near, other := net.Pipe()
		far = append(far, other)
		return near, nil
	})
	a, err := dial(t.Context(), "tcp", "x")
	if err != nil {
		t.Fatal(err)
	}
	go io.WriteString(a, "hi")
	if b, err := io.ReadAll(io.LimitReader(far[0], 2)); err != nil || string(b) != "hi" {
		t.Fatalf("over the link: %q, %v", b, err)
	}
	closed, err := dial(t.Context(), "tcp", "x")
	if err != nil || closed.Close() != nil || len(l.conns) != 1 {
		t.Fatalf("%d connections after a close, %v", len(l.conns), err)
	}
	l.Cut()
	if _, err := a.Write([]byte("x")); err == nil {
		t.Error("a cut connection carries")
	}
	if _, err := far[0].Read(make([]byte, 1)); err == nil {
		t.Error("the far side of a cut connection is open")
	}
	if _, err := dial(t.Context(), "tcp", "x"); !errors.Is(err, ErrCut) || !l.IsCut() || len(far) != 2 {
		t.Errorf("over a cut link: %v, %d dialed", err, len(far))
	}
	if a.Close() != nil {
		t.Error("a cut connection cannot be closed")
	}
	l.Heal()
	if _, err := dial(t.Context(), "tcp", "x"); err != nil || l.IsCut() {
		t.Errorf("after it healed: %v", err)
	}
}

// A connection that was being made when the link was cut is cut too.
func TestLinkCutWhileDialing(t *testing.T) {
	var l Link
	var far net.Conn
	dial := l.Dial(func(context.Context, string, string) (near net.Conn, err error) {
		near, far = net.Pipe()
		l.Cut()
		return near, nil
	})
	if _, err := dial(t.Context(), "tcp", "x"); !errors.Is(err, ErrCut) {
		t.Errorf("dialed while the link was cut: %v", err)
	}
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the connection stays open")
	}
	failed := errors.New("refused")
	l.Heal()
	dial = l.Dial(func(context.Context, string, string) (net.Conn, error) { return nil, failed })
	if _, err := dial(t.Context(), "tcp", "x"); !errors.Is(err, failed) {
		t.Errorf("a dial that fails: %v", err)
	}
}
