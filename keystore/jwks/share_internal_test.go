package jwks

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// While one attempt after the other is under way, an issuer that answers otherwise each time (another
// ETag, a large header and no body) does not fill the memory, nor does it end the sharing of others.
func TestSharedAnswersAreBounded(t *testing.T) {
	var s answers
	start := time.Now()
	ask := func(key string, body int) (own bool) {
		s.get(context.Background(), key, start, time.Now, func() (*answer, *Error) {
			own = true
			if body < 0 {
				return nil, failf(StepStatus, "status 500")
			}
			return &answer{header: http.Header{"A": {strings.Repeat("a", maxHeader)}}, body: make([]byte, body)}, nil
		})
		return own
	}
	for i := range 20_000 {
		ask(fmt.Sprintf("etag %d %s", i, strings.Repeat("e", maxValidator)), i%2-1)
	}
	held := 0
	for key, one := range s.all {
		held += len(key)
		if one.answer != nil {
			held += len(one.answer.body)
			for name, values := range one.answer.header {
				held += len(name + strings.Join(values, ""))
			}
		}
	}
	if held > maxShared || len(s.all) > maxShared>>10 {
		t.Errorf("%d answers of %d bytes are held", len(s.all), held)
	}
	for range 40 { // these bodies alone fill it
		ask(fmt.Sprint("large ", time.Now().UnixNano()), 1<<20)
	}
	if !ask("shared", 1000) || ask("shared", 1000) {
		t.Error("an answer is not shared any longer")
	}
}
