//go:build !unix

package server

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

// listenUnix refuses: a socket's mode guards it on a Unix alone.
func listenUnix(context.Context, string, fs.FileMode) (net.Listener, error) {
	return nil, errors.New("sockets are for systems whose files have modes: listen on a loopback address")
}
