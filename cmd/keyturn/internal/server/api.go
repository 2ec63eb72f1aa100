package server

import (
	"errors"
	"io"
	"net/http"

	"github.com/keyturn/keyturn/middleware"
)

// maxBodyBytes is how much of a request's body the API reads, and drops.
const maxBodyBytes = 10 << 20

// serveAPI is the demo API. It answers every request of a verified caller, and calls no other
// service.
func serveAPI(w http.ResponseWriter, r *http.Request) {
	t, ok := middleware.TokenFrom(r.Context())
	if !ok {
		answer(w, http.StatusInternalServerError, map[string]string{"error": "Authorization error"})
		return
	}
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		answer(w, http.StatusRequestEntityTooLarge, map[string]string{"error": "Request body too large"})
		return
	}
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "Request body cannot be read"})
		return
	}
	answer(w, http.StatusOK, map[string]string{
		"text":    "Your token is good. This is the demo API of keyturn: it asks no model and calls nobody.",
		"tenant":  t.Tenant(),
		"subject": t.Subject(),
		"path":    r.URL.Path,
	})
}
