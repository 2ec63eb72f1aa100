package rediskeys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// The known causes of a failed call. After each of them the caller knows nothing about
// the keys; none of them means that something is missing. docs/operations.md has the
// remedies.
var (
	// ErrReplica reports that the server is a replica (READONLY), or a replica that has
	// lost its primary (MASTERDOWN). The address is wrong, or the primary was demoted.
	ErrReplica = errors.New("this Redis is a replica, whose answers are old: use the address of the primary, or Sentinel")

	// ErrNoReplicas reports that the primary refuses writes because it sees fewer
	// replicas than min-replicas-to-write (NOREPLICAS). Another server may be primary
	// by now.
	ErrNoReplicas = errors.New("this Redis has fewer replicas in reach than min-replicas-to-write, so it may be cut off: bring its replicas back, or let another take over")

	// ErrLoading reports that the server has started and still reads its dump (LOADING).
	ErrLoading = errors.New("Redis has started and still loads its data: wait")

	// ErrBusy reports that a client's script runs for longer than the server's
	// busy-reply-threshold (BUSY).
	ErrBusy = errors.New("Redis is busy with a script: wait, or end it with SCRIPT KILL")

	// ErrFull reports that maxmemory is reached (OOM).
	ErrFull = errors.New("Redis is full: raise its maxmemory, and never let it evict")

	// ErrNotSaved reports that the server could not write its last dump and refuses
	// writes until it can (MISCONF).
	ErrNotSaved = errors.New("Redis cannot save to its disk and refuses writes: see its log")

	// ErrNoPermission reports that the user's ACL lacks a command, a key or a
	// channel (NOPERM). The package comment lists those that are needed.
	ErrNoPermission = errors.New("the Redis user may not do this: give it the commands, keys and channels that the documentation of rediskeys names")

	// ErrNoAuth reports that the user or the password is missing or wrong (NOAUTH,
	// WRONGPASS).
	ErrNoAuth = errors.New("Redis does not accept the user or the password: check them")

	// ErrCredentials reports that the function for the user and the password has failed
	// ([Options.Credentials]).
	ErrCredentials = errors.New("there are no user and password for Redis: repair what provides them, such as the password file")

	// ErrAuthority reports that no authority that is trusted here has signed the certificate of
	// the server.
	ErrAuthority = errors.New("the certificate of Redis is of an authority that is not trusted here: trust the one that signed it")

	// ErrServerName reports that the certificate of the server is of other names. Sentinels and
	// Clusters give out IP addresses unless they are told otherwise (redis/redis issue 7928).
	ErrServerName = errors.New("the certificate of Redis is of another name: connect by a name that it has, let Sentinels and a Cluster announce host names, or set the server name, which then holds for all servers and Sentinels")

	// ErrCertificateDates reports that the certificate of the server has expired, or is not good yet.
	ErrCertificateDates = errors.New("the certificate of Redis is not good at this time: renew it, or set the clock of this machine")

	// ErrClientCertificate reports that the server wants a certificate from its clients, or refuses
	// the one that it got.
	ErrClientCertificate = errors.New("Redis refuses the certificate of this client, or wants one: give one of an authority that Redis trusts, and its key")

	// ErrTLS reports that TLS did not come about for another reason: the server does not speak it on
	// this port, or the two have no version in common, or the server hung up.
	ErrTLS = errors.New("TLS with Redis failed: is this its port for TLS, does it want a certificate of this client, and do both know a version of TLS?")

	// ErrWrongType reports that one of the store's keys has another type than the
	// store gives it (WRONGTYPE): another program writes to it. [Store.Sync] says which keys an instance mends.
	ErrWrongType = errors.New("a key holds something that keyturn did not write: look at it, and delete it or restore a backup")

	// ErrTooLarge reports that a ring has more than 1 MiB, or would have after the change
	// (TOOLARGE). The store does not read it: anyone who can write to Redis could make it as
	// large as Redis is.
	ErrTooLarge = errors.New("the ring is larger than any that keyturn needs: look which fields it has, and delete those that keyturn did not write")

	// ErrClusterDown reports that no server of the Cluster serves this key now
	// (CLUSTERDOWN), that its slot is being moved (ASK, TRYAGAIN), or that the server
	// belongs to a Cluster and the URL does not say so (MOVED, CROSSSLOT).
	ErrClusterDown = errors.New("the Redis Cluster does not serve this key now: see CLUSTER INFO, and use the cluster form of the URL")

	// ErrUnsupported reports that the server does not know a command: the server is too
	// old, or the command was renamed or turned off.
	ErrUnsupported = errors.New("this server lacks what keyturn needs: use Redis 6.0 or later")

	// ErrTimeout reports that no answer came within the deadline of the call or of
	// the client. If the call was a change, it may have been made.
	ErrTimeout = errors.New("Redis did not answer in time: check the network and its load")

	// ErrUnreachable reports that there is no connection: nothing listens, the name
	// does not resolve, or the connection broke. If the call was a change, it may have
	// been made.
	ErrUnreachable = errors.New("Redis cannot be reached: check its address and that it runs")
)

// An Error says which call failed, and why. Its text is "rediskeys: Call: Kind (Err)", or
// "rediskeys: Call: Err" without a Kind. It wraps Kind and Err.
type Error struct {
	// Call names the call that failed, such as "sync of bucket 175", or "the URL of Redis".
	Call string

	// Kind is one of this package's errors, which says what to do. It is nil if the cause is
	// not known.
	Kind error

	// Err is the error that Redis or the client returned.
	Err error
}

// Error returns the parts as one text.
func (e *Error) Error() string {
	if e.Kind != nil {
		return fmt.Sprintf("rediskeys: %s: %v (%v)", e.Call, e.Kind, e.Err)
	}
	return fmt.Sprintf("rediskeys: %s: %v", e.Call, e.Err)
}

// Unwrap returns Kind and Err.
func (e *Error) Unwrap() []error {
	if e.Kind != nil {
		return []error{e.Kind, e.Err}
	}
	return []error{e.Err}
}

// explain wraps err with the call that failed and, if the cause is known, the package's
// error for it, which says what to do.
func explain(call string, err error) error {
	kind := kindOf(err)
	if text := err.Error(); strings.Contains(text, "\n") || strings.Contains(text, argumentsFollow) {
		err = &lineError{err}
	}
	return &Error{Call: call, Kind: kind, Err: err}
}

// argumentsFollow is how Redis 5 and later goes on after "unknown command 'AUTH'": the password follows.
const argumentsFollow = ", with args beginning with:"

// A lineError is an error in one line, without the arguments of an unknown command. The client joins
// those of several Sentinels with line ends.
type lineError struct{ err error }

func (e *lineError) Error() string {
	lines := strings.Split(e.err.Error(), "\n")
	for i, line := range lines {
		lines[i], _, _ = strings.Cut(line, argumentsFollow)
	}
	return strings.Join(lines, "; ")
}

func (e *lineError) Unwrap() error { return e.err }

func kindOf(err error) error {
	if errors.As(err, new(*credentialsError)) {
		return ErrCredentials
	}
	if kind := kindOfHandshake(err); kind != nil {
		return kind
	}
	if errors.As(err, new(redis.Error)) {
		return kindOfReply(err.Error())
	}
	switch ne := net.Error(nil); {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout(), errors.Is(err, redis.ErrPoolTimeout):
		return ErrTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, new(*net.OpError)), errors.As(err, new(syscall.Errno)):
		return ErrUnreachable
	}
	return nil
}

// exhaustedText is in the error of a log with an entry at the end of time.
const exhaustedText = "exhausted the last possible"

// isExhausted reports whether a log refused an entry because it takes none any more.
func isExhausted(err error) bool { return strings.Contains(err.Error(), exhaustedText) }

// kindOfReply looks for an error code anywhere in the text of a reply. If a command
// fails within a script, some versions of Redis put other words before its code.
func kindOfReply(text string) error {
	words := " " + strings.ReplaceAll(text, "-", " ") + " "
	for _, k := range []struct {
		code string
		kind error
	}{
		{"READONLY", ErrReplica},
		{"MASTERDOWN", ErrReplica},
		{"NOREPLICAS", ErrNoReplicas},
		{"LOADING", ErrLoading},
		{"BUSY", ErrBusy},
		{"OOM", ErrFull},
		{"MISCONF", ErrNotSaved},
		{"NOPERM", ErrNoPermission},
		{"can't run this command or subcommand", ErrNoPermission}, // from an ACL, in a script, by Redis 6
		{"No permissions to access a key", ErrNoPermission},
		{"NOAUTH", ErrNoAuth},
		{"WRONGPASS", ErrNoAuth},
		{"AUTH failed", ErrNoAuth},
		{"unauthenticated", ErrNoAuth}, // for a command with many arguments
		{"WRONGTYPE", ErrWrongType},
		{"MOVED", ErrClusterDown},
		{"ASK", ErrClusterDown},
		{"TRYAGAIN", ErrClusterDown},
		{"CLUSTERDOWN", ErrClusterDown},
		{"CROSSSLOT", ErrClusterDown},
		{exhaustedText, ErrWrongType},
		{"TOOLARGE", ErrTooLarge},
		{"unknown command", ErrUnsupported},
		{"Unknown Redis command", ErrUnsupported},
	} {
		if strings.Contains(words, " "+k.code+" ") {
			return k.kind
		}
	}
	return nil
}
