package jwks

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/keystore/jwks/internal/queue"
)

// Reload fetches now, as the schedule does, and waits for the end.
func Reload(ctx context.Context, s *Source) error {
	e := s.e
	for {
		e.mu.Lock()
		a := e.attempt
		own := a == nil
		if own {
			e.startLocked(queue.Scheduled, false)
			a = e.attempt
		}
		e.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if own && a.err != nil {
			return a.err
		}
		if own {
			return nil
		}
	}
}

// Missing returns how many kids are remembered as missing.
func Missing(s *Source) int {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.e.missing.Len(s.e.set.generation)
}

// Scheduled returns how many sources the Client will tick.
func Scheduled(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.agenda)
}

// File returns the name of the file of a source.
func File(s *Source) string { return s.e.fileName() }

// LastUsed returns when a caller last asked the source.
func LastUsed(s *Source) time.Time {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.e.inUseLocked(s.e.c.now())
	return s.e.lastUse
}

// The numbers that tests need to know.
const (
	MinIdle      = minIdle
	WakeWait     = wakeWait
	MaxWait      = maxWait
	FetchTimeout = fetchTimeout
	MaxBody      = defaultMaxBytes
	MaxRaw       = defaultMaxBytes + rawExtra
)

// DialUnjudged has the dialer of a source without permissions dial an address that was not judged.
func DialUnjudged(ctx context.Context, addr string) error {
	d := dialer{}
	conn, err := d.dialOne(ctx, addr, d.judge)
	if err == nil {
		conn.Close()
	}
	return err
}

// JWKSURI returns the jwks_uri of metadata, for a source with cfg.
func JWKSURI(doc []byte, issuer string, cfg SourceConfig) (string, error) {
	u, failed := cfg.guard().jwksURI(doc, issuer)
	if failed != nil {
		return "", failed
	}
	return u.String(), nil
}
