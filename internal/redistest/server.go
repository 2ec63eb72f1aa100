package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/internal/freeport"
)

const (
	// patience is how long await waits at most. It allows for a busy machine.
	patience = 20 * time.Second
	pause    = 10 * time.Millisecond
)

// Options say how to run a server. The zero Options run one that does not save its
// data.
type Options struct {
	// Keep makes the server write each change to the disk before it acknowledges it,
	// so that the change survives [Server.Kill] and [Server.Restart].
	Keep bool

	// ReplicaOf is the address of the server to replicate, or of a [Proxy].
	ReplicaOf string

	// TLS, if not nil, makes the server speak TLS alone.
	TLS *TLS

	// Args are further options of redis-server, as on its command line, such as
	// "--maxmemory", "10mb".
	Args []string
}

// A Server is a redis-server process. It is safe for concurrent use.
type Server struct {
	port   int
	dir    string
	args   []string
	client *redis.Client

	mu      sync.Mutex // held while the process changes
	process *process
}

// Start starts a server and returns when it answers. If it is a replica, Start also
// waits until it has copied the primary's data.
func Start(o Options) (*Server, error) {
	args := []string{"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}
	if o.Keep {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	if o.ReplicaOf != "" {
		args = append(args, "--replicaof", strings.Replace(o.ReplicaOf, ":", " ", 1))
	}
	s, err := start(func(int) []string { return slices.Concat(args, o.Args) }, "", o.TLS)
	if err != nil || o.ReplicaOf == "" {
		return s, err
	}
	if err := s.await("to be in sync", s.inSync); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// busOffset is the distance from a server's port to its Cluster bus port.
const busOffset = 10_000

// start starts a server on a free port. It tries three times, because another process
// may take the port first. A config that is not empty goes into a file, which the
// server may change.
func start(args func(port int) []string, config string, t *TLS) (*Server, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	var errs []error
	for range 3 {
		s, err := startOnce(args, config, t)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func startOnce(args func(port int) []string, config string, t *TLS) (*Server, error) {
	port, err := freeport.Port(busOffset)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		return nil, err
	}
	s := &Server{port: port, dir: dir}
	speaks, client := []string{"--port", strconv.Itoa(port)}, (*tls.Config)(nil)
	if t != nil {
		if speaks, client, err = t.serve(dir, port); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	s.client = newClient(freeport.Join(port), client)
	if config != "" {
		file := filepath.Join(dir, "server.conf")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
		s.args = append(s.args, file)
	}
	s.args = append(s.args, "--bind", "127.0.0.1", "--dir", dir)
	s.args = slices.Concat(s.args, speaks, args(port))
	if err := s.up(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func newClient(addr string, t *tls.Config) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, TLSConfig: t, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second,
		ReadTimeout: 5 * time.Second, ContextTimeoutEnabled: true, DisableIdentity: true, Protocol: 2,
	})
}

// up starts the process and waits until the server answers.
func (s *Server) up() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(binary, s.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("redistest: %w", err)
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	return s.await("to answer", func(ctx context.Context) (bool, error) {
		if !p.alive() {
			return false, fmt.Errorf("redistest: %s has ended: %s", binary, s.lastWords())
		}
		return s.listens() && s.client.Ping(ctx).Err() == nil, nil
	})
}

// listens reports whether the port accepts connections. The client is not used before
// that, because it logs each failure.
func (s *Server) listens() bool {
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

func (s *Server) lastWords() string {
	log, _ := os.ReadFile(s.logFile())
	return string(log[max(0, len(log)-1000):])
}

// await calls done until it returns true or an error.
func (s *Server) await(what string, done func(context.Context) (bool, error)) error {
	return await(fmt.Sprintf("%s: %s", s.Addr(), what), done)
}

func await(what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		switch ok, err := done(ctx); {
		case err != nil:
			return err
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("redistest: waited for %s", what)
		case <-time.After(pause):
		}
	}
}

func (s *Server) inSync(ctx context.Context) (bool, error) {
	info, err := s.client.Info(ctx, "replication").Result()
	return err == nil && strings.Contains(info, "master_link_status:up"), nil
}

// Addr returns the server's address, host and port.
func (s *Server) Addr() string { return freeport.Join(s.port) }

// Client returns a client for the test's own commands. It does not retry. Stop closes
// it.
func (s *Server) Client() *redis.Client { return s.client }

// Do runs a command, such as Do(ctx, "CONFIG", "SET", "maxmemory", "1").
func (s *Server) Do(ctx context.Context, args ...any) error {
	if err := s.client.Do(ctx, args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("redistest: %v: %w", args, err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits until it has ended.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.kill()
	}
}

// Pause stops the process with SIGSTOP: its port accepts connections, but nothing
// answers. Resume lets the process go on.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.cmd.Process.Signal(sig)
}

// Restart kills the process if it runs and starts it again at the same address. It has
// its data only with [Options.Keep].
func (s *Server) Restart() error {
	s.Kill()
	return s.up()
}

// RestartEmpty is [Server.Restart] without the data.
func (s *Server) RestartEmpty() error {
	s.Kill()
	for _, name := range []string{"appendonlydir", "appendonly.aof", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return s.up()
}

// Promote makes a replica a primary. Its former primary also stays one.
func (s *Server) Promote(ctx context.Context) error { return s.Do(ctx, "REPLICAOF", "NO", "ONE") }

// Follow makes the server a replica of the server at an address, and waits until it has
// replaced its data with that server's.
func (s *Server) Follow(ctx context.Context, addr string) error {
	host, port, _ := strings.Cut(addr, ":")
	if err := s.Do(ctx, "REPLICAOF", host, port); err != nil {
		return err
	}
	return s.await("to follow", s.inSync)
}

// Stop kills the process and removes its data.
func (s *Server) Stop() error {
	s.Kill()
	_ = s.client.Close() // fails if it is closed already
	return os.RemoveAll(s.dir)
}
