package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// Redis answers an unknown command, such as an AUTH that was renamed, with its arguments: the password. A
// report of the doctor is a thing that people send to others.
func TestNoPasswordFromRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echoArguments(c)
		}
	}()
	url := "redis://me:hush-hush@" + l.Addr().String()
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}, {"keys", "list"}, {"keys", "acl", "--user", "me", "--check"}} {
		r := keyturn(t, append(args, "--redis", url)...)
		if r.code == exitYes || strings.Contains(r.stdout+r.stderr, "hush-hush") {
			t.Errorf("%s: code %d\n%s\n%s", args, r.code, r.stdout, r.stderr)
		}
	}
}

func echoArguments(c net.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			return
		}
		answer := "-ERR unknown command 'AUTH', with args beginning with:"
		for range n {
			var size int
			if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			answer += " '" + string(b[:size]) + "'"
		}
		io.WriteString(c, answer+"\r\n")
	}
}
