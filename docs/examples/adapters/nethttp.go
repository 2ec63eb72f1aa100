package adapters

import (
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/julienschmidt/httprouter"

	"github.com/keyturn/keyturn/middleware"
	"github.com/keyturn/keyturn/verifier"
)

// hello answers with what the token says.
func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := middleware.TokenFrom(r.Context())
	fmt.Fprintf(w, "hello %s of %s\n", token.Subject(), token.Tenant())
}

func withNetHTTP(v *verifier.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", middleware.Require(v)(http.HandlerFunc(hello)))
	return mux
}

func withChi(v *verifier.Verifier) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Require(v)) // before the first route, or chi panics
	r.Get("/", hello)
	r.With(middleware.RequireScope("orders:write")).Post("/orders", hello)
	return r
}

func withGorilla(v *verifier.Verifier) http.Handler {
	r := mux.NewRouter()
	r.Use(middleware.Require(v)) // not for what no route matches: that stays 404 or 405
	r.HandleFunc("/", hello).Methods("GET")
	return r
}

func withHTTPRouter(v *verifier.Verifier) http.Handler {
	r := httprouter.New()
	r.Handler("GET", "/", middleware.Require(v)(http.HandlerFunc(hello)))
	return r
}
