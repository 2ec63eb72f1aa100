package jwks

import (
	"context"
	"time"
)

// Reload fetches as the schedule does, now, and waits.
func Reload(ctx context.Context, s *Source) error {
	e := s.e
	for {
		e.mu.Lock()
		f := e.flight
		mine := f == nil
		if mine {
			e.launchLocked(scheduled, false)
			f = e.flight
		}
		e.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if mine && f.err != nil {
			return f.err
		}
		if mine {
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

// The numbers that tests need to know.
const (
	MinIdle      = minIdle
	WakeWait     = wakeWait
	MaxWait      = maxWait
	FetchTimeout = fetchTimeout
	MaxBody      = maxBody
	MaxRaw       = maxRaw
)

// Asked returns when somebody asked the source last.
func Asked(s *Source) time.Time { return s.e.lastAsked() }
