package middleware

import (
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/keyturn/keyturn/verifier"
)

// A Readiness says what [Ready] asks, and how much it tells.
type Readiness struct {
	// Tenants returns the tenants that count. Of each, ID and Keys are used, so it may
	// return the list that [verifier.New] got. It is required, and must be safe for
	// concurrent use.
	Tenants func() []verifier.Tenant

	// Named also names each tenant, and for one that is not ready the error of its key
	// store. Both are for operators: such a handler belongs on a listener of their own.
	Named bool

	// Now reports the time. The default is [time.Now].
	Now func() time.Time
}

// Ready returns a handler for the readiness probe of a service that verifies tokens. It
// asks the key store of each tenant whether it can answer. A store says so by a method
// Ready(tenant string) error, which returns why it cannot; one without that method, such
// as a [keystore.Static], always can.
//
//	200 {"status":"ready","ready":2,"degraded":0,"not_ready":0}
//	200 {"status":"degraded","ready":1,"degraded":0,"not_ready":1}
//	503 {"status":"not ready","ready":0,"degraded":0,"not_ready":2}
//
// The service is not ready if no tenant is, so that the outage of one tenant's issuer does
// not take it from all others. Without tenants it is not ready. The form is that of
// "keyturn serve", where a tenant may also be degraded.
//
// It answers GET and HEAD, and asks the stores at most once a second, however many ask it.
// It panics if cfg.Tenants is nil.
func Ready(cfg Readiness) http.Handler {
	if cfg.Tenants == nil {
		panic("middleware: Ready: nil Tenants")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &readyHandler{cfg: cfg}
}

type readyHandler struct {
	cfg Readiness

	mu    sync.Mutex // guards the rest, and lets one request ask the stores for all others
	asked time.Time
	last  readiness
}

// readyFor is how long an answer of the stores serves.
const readyFor = time.Second

// What the answer says of a tenant, and of the whole.
const (
	stateReady    = "ready"
	stateDegraded = "degraded" // of the whole alone
	stateNotReady = "not ready"
)

// A readiness is the answer. It is immutable.
type readiness struct {
	Status   string                 `json:"status"`
	Ready    int                    `json:"ready"`
	Degraded int                    `json:"degraded"`
	NotReady int                    `json:"not_ready"`
	Tenants  map[string]tenantReady `json:"tenants,omitempty"`
}

type tenantReady struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

// ServeHTTP implements [http.Handler].
func (h *readyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeJSON(w, http.StatusMethodNotAllowed, `{"error":"method_not_allowed"}`+"\n")
		return
	}
	all := h.current()
	status := http.StatusOK
	if all.Status == stateNotReady {
		status = http.StatusServiceUnavailable
	}
	// The options leave no error: a name or a reason may be any text.
	body, _ := json.Marshal(all, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	writeJSON(w, status, string(body)+"\n")
}

// current returns what the stores say, or have said a moment ago.
func (h *readyHandler) current() readiness {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.cfg.Now()
	if age := now.Sub(h.asked); h.asked.IsZero() || age < 0 || age >= readyFor {
		h.last, h.asked = h.ask(), now
	}
	return h.last
}

func (h *readyHandler) ask() readiness {
	all := readiness{}
	if h.cfg.Named {
		all.Tenants = make(map[string]tenantReady)
	}
	for _, t := range h.cfg.Tenants() {
		one := readyOf(&t)
		if one.Status == stateReady {
			all.Ready++
		} else {
			all.NotReady++
		}
		if h.cfg.Named {
			all.Tenants[t.ID] = one
		}
	}
	all.Status = all.status()
	return all
}

// status returns the status of all tenants together.
func (r *readiness) status() string {
	switch {
	case r.Ready == 0:
		return stateNotReady
	case r.NotReady > 0:
		return stateDegraded
	}
	return stateReady
}

// readyOf asks the key store of a tenant.
func readyOf(t *verifier.Tenant) tenantReady {
	if t.Keys == nil {
		return tenantReady{stateNotReady, "there is no key store"}
	}
	store, ok := t.Keys.(interface{ Ready(tenant string) error })
	if !ok {
		return tenantReady{Status: stateReady}
	}
	if err := store.Ready(t.ID); err != nil {
		return tenantReady{stateNotReady, err.Error()}
	}
	return tenantReady{Status: stateReady}
}
