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

// What can be wrong with Redis, and what to do. Whatever it is, nothing is known
// of the keys; none says that something is absent. docs/operations.md has what to
// type.
var (
	// ErrReplica reports that what answers is a replica (READONLY), or one that has
	// lost its primary (MASTERDOWN): a wrong address, or a primary that was demoted.
	ErrReplica = errors.New("this Redis is a replica, whose answers are old: use the address of the primary, or Sentinel")

	// ErrNoReplicas reports that the primary refuses writes, as it sees fewer
	// replicas than min-replicas-to-write (NOREPLICAS): another may be primary by now.
	ErrNoReplicas = errors.New("this Redis has fewer replicas in reach than min-replicas-to-write, so it may be cut off: bring its replicas back, or let another take over")

	// ErrLoading reports that the server has started, and reads its dump (LOADING).
	ErrLoading = errors.New("Redis has started and still loads its data: wait")

	// ErrBusy reports that somebody's script runs for longer than the server's
	// busy-reply-threshold (BUSY).
	ErrBusy = errors.New("Redis is busy with a script: wait, or end it with SCRIPT KILL")

	// ErrFull reports that maxmemory is reached (OOM).
	ErrFull = errors.New("Redis is full: raise its maxmemory, and never let it evict")

	// ErrNotSaved reports that the server could not write its last dump, and takes
	// no writes before it can (MISCONF).
	ErrNotSaved = errors.New("Redis cannot save to its disk and refuses writes: see its log")

	// ErrNoPermission reports that the user's ACL lacks a command, a key or a
	// channel (NOPERM): the package comment has those that are needed.
	ErrNoPermission = errors.New("the Redis user may not do this: give it the commands, keys and channels that the documentation of rediskeys names")

	// ErrNoAuth reports that the user or the password is missing or wrong (NOAUTH,
	// WRONGPASS).
	ErrNoAuth = errors.New("Redis does not accept the user or the password: check them")

	// ErrWrongType reports that one of our keys is of another type than we make it
	// (WRONGTYPE): something else writes there.
	ErrWrongType = errors.New("a key holds something that keyturn did not write: look at it, and delete it or restore a backup")

	// ErrClusterDown reports that no server of the Cluster serves this key now
	// (CLUSTERDOWN), that its slot is being moved (ASK, TRYAGAIN), or that the URL
	// is not one of a Cluster (MOVED, CROSSSLOT).
	ErrClusterDown = errors.New("the Redis Cluster does not serve this key now: see CLUSTER INFO, and use the cluster form of the URL")

	// ErrUnsupported reports that the server does not know a command: it is too old,
	// or the command was renamed or turned off.
	ErrUnsupported = errors.New("this server lacks what keyturn needs: use Redis 6.0 or later")

	// ErrTimeout reports that no answer came within the deadline of the call or of
	// the client. Whether a change was made is not known.
	ErrTimeout = errors.New("Redis did not answer in time: check the network and its load")

	// ErrUnreachable reports that there is no connection: nothing listens, the name
	// does not resolve, or it broke off. Whether a change was made is not known.
	ErrUnreachable = errors.New("Redis cannot be reached: check its address and that it runs")
)

// explain returns err with what was done, and what to do.
func explain(what string, err error) error {
	if kind := kindOf(err); kind != nil {
		return fmt.Errorf("rediskeys: %s: %w (%w)", what, kind, err)
	}
	return fmt.Errorf("rediskeys: %s: %w", what, err)
}

func kindOf(err error) error {
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

// kindOfReply finds the code anywhere in the text: what a command said within a
// script is quoted after other words by some versions.
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
		{"can't run this command or subcommand", ErrNoPermission}, // of an ACL, in a script, by Redis 6
		{"No permissions to access a key", ErrNoPermission},
		{"NOAUTH", ErrNoAuth},
		{"WRONGPASS", ErrNoAuth},
		{"AUTH failed", ErrNoAuth},
		{"unauthenticated", ErrNoAuth}, // said of a command with many arguments
		{"WRONGTYPE", ErrWrongType},
		{"MOVED", ErrClusterDown},
		{"ASK", ErrClusterDown},
		{"TRYAGAIN", ErrClusterDown},
		{"CLUSTERDOWN", ErrClusterDown},
		{"CROSSSLOT", ErrClusterDown},
		{"unknown command", ErrUnsupported},
		{"Unknown Redis command", ErrUnsupported},
	} {
		if strings.Contains(words, " "+k.code+" ") {
			return k.kind
		}
	}
	return nil
}
