package rediskeys_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/rotation"
	"github.com/keyturn/keyturn/rotation/rediskeys"
)

// A server that does not know a command, or whose AUTH was renamed, answers with its arguments. They may
// be the password.
func TestErrorsHoldNoArguments(t *testing.T) {
	const secret = "s3cr3t"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerUnknown(c)
		}
	}()
	for _, url := range []string{"redis://me:%s@%s", "redis://:%s@%s", "redis-cluster://me:%s@%s", "redis-sentinel://me:x@%[2]s/m?sentinel_password=%[1]s", "redis-sentinel://me:x@%[2]s/m?sentinel_username=a&sentinel_password=%[1]s"} {
		s := open(t, fmt.Sprintf(url, secret, l.Addr()))
		for name, call := range calls(t.Context(), s, rotation.Place{}) {
			err := call()
			wantErr(t, url+": "+name, err, rediskeys.ErrUnsupported)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %s: the error shows the password: %v", url, name, err)
			}
		}
	}
}

// answerUnknown answers each command as Redis does if it does not know it.
func answerUnknown(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			return
		}
		args := make([]string, n)
		for i := range args {
			var size int
			if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			args[i] = "'" + string(b[:size]) + "'"
		}
		fmt.Fprintf(c, "-ERR unknown command %s, with args beginning with: %s \r\n", args[0], strings.Join(args[1:], " "))
	}
}
