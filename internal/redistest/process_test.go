package redistest_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/redistest"
)

// A test that is killed must not leave servers behind.
func TestServersDieWithProcess(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	const role = "REDISTEST_PARENT"
	if os.Getenv(role) != "" {
		s, err := redistest.Start(redistest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("\n%s%s\n", role, s.Addr())
		select {} // waits to be killed
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), role+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr := ""
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		addr, _ = strings.CutPrefix(lines.Text(), role)
		if addr == lines.Text() {
			addr = ""
		}
	}
	if c, err := net.Dial("tcp", addr); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for ctx := deadline(t); ctx.Err() == nil; {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		c.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the server did not end with its parent")
}

// A server must survive the thread of the goroutine that called Start.
func TestServersSurviveThread(t *testing.T) {
	redistest.Need(t)
	t.Parallel()
	var wg sync.WaitGroup
	servers := make(chan *redistest.Server, 1)
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		s, err := redistest.Start(redistest.Options{})
		if err != nil {
			t.Error(err)
		}
		servers <- s
	})
	wg.Wait()
	s := <-servers
	defer s.Stop()
	time.Sleep(100 * time.Millisecond) // for another process: by then the thread has ended
	if err := s.Client().Ping(deadline(t)).Err(); err != nil {
		t.Error(err)
	}
}
