package server

import (
	"context"
	"net"
)

// listen opens the listeners.
func (s *Server) listen(ctx context.Context) (err error) {
	tcp := func(addr string, part Part) net.Listener {
		l, failed := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if failed != nil {
			err = &Error{Part: part, Err: failed}
			return nil
		}
		return patiently(l)
	}
	if s.cfg.Addr != "" || s.cfg.Unix == "" {
		s.listener = tcp(s.cfg.Addr, PartListener)
	}
	if err == nil && s.cfg.Unix != "" {
		if s.unix, err = listenUnix(ctx, s.cfg.Unix, s.cfg.UnixMode); err != nil {
			s.unix, err = nil, &Error{Part: PartUnix, Err: err}
		} else {
			s.unix = patiently(s.unix)
		}
	}
	if err == nil && s.cfg.Admin != "" {
		s.admin = tcp(s.cfg.Admin, PartAdmin)
	}
	return err
}
