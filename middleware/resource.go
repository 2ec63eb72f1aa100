package middleware

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// A Resource is what clients should know of an API that wants tokens: its protected
// resource metadata (RFC 9728). All URLs are absolute, https, in ASCII, and without user,
// query and fragment. For tests and development they may be http on a loopback host.
type Resource struct {
	// URL identifies the API. Clients compare it byte for byte with the URL that they
	// call, or with its beginning, and ask for tokens with this audience (RFC 8707). It is
	// required.
	URL string

	// AuthorizationServers are the issuers whose tokens the API accepts. At least one is
	// required.
	AuthorizationServers []string

	// Scopes are those that a client may ask for. They may be empty.
	Scopes []string

	// Name is the name of the API for people. It may be empty.
	Name string

	// Documentation is the URL of a page for developers. It may be empty.
	Documentation string
}

const resourcePath = "/.well-known/oauth-protected-resource"

// MetadataURL returns the URL where clients look for the metadata (RFC 9728, section 3.1).
// The path of r.URL comes last: https://api.example/mcp has its metadata at
// https://api.example/.well-known/oauth-protected-resource/mcp. It panics if r.URL is not
// what a Resource may have.
func (r Resource) MetadataURL() string {
	if problem := checkIssuerURL(r.URL); problem != "" {
		panic("middleware: Resource.URL: " + problem)
	}
	scheme, rest, _ := strings.Cut(r.URL, "://")
	host, path, _ := strings.Cut(rest, "/")
	if path != "" { // a slash right after the host goes
		path = "/" + path
	}
	return scheme + "://" + host + resourcePath + path
}

// resourceMetadata is the document (RFC 9728, section 2). It has no jwks_uri, which would
// be for keys of the API itself.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	Scopes               []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	Name                 string   `json:"resource_name,omitempty"`
	Documentation        string   `json:"resource_documentation,omitempty"`
}

// resourceMaxAge is how long clients may keep the metadata. A change of the authorization
// server is rare, and both serve for a while.
const resourceMaxAge = time.Hour

// ResourceMetadata returns a handler that publishes what clients should know of an API.
// It belongs at [Resource.MetadataURL], and needs no token. It answers GET, HEAD and
// OPTIONS like [JWKS], with an ETag, for scripts of any origin. [WithResourceMetadata]
// leads clients there.
//
// It panics if a field of r is missing or malformed.
func ResourceMetadata(r Resource) http.Handler {
	if field, problem := r.check(); problem != "" {
		panic(fmt.Sprintf("middleware: Resource.%s: %s", field, problem))
	}
	doc, err := json.Marshal(resourceMetadata{
		Resource: r.URL, AuthorizationServers: r.AuthorizationServers, Scopes: r.Scopes,
		BearerMethods: []string{"header"}, Name: r.Name, Documentation: r.Documentation,
	})
	if err != nil {
		panic("middleware: ResourceMetadata: " + err.Error())
	}
	return &publisher{func(*http.Request) ([]byte, time.Duration, error) { return doc, resourceMaxAge, nil }, "application/json"}
}

// check returns a field that is wrong, and why.
func (r *Resource) check() (field, problem string) {
	if problem := checkIssuerURL(r.URL); problem != "" {
		return "URL", problem
	}
	if len(r.AuthorizationServers) == 0 {
		return "AuthorizationServers", "empty: clients would not know where to get a token"
	}
	for i, s := range r.AuthorizationServers {
		if problem := checkIssuerURL(s); problem != "" {
			return fmt.Sprintf("AuthorizationServers[%d]", i), problem
		}
		if slices.Contains(r.AuthorizationServers[:i], s) {
			return "AuthorizationServers", fmt.Sprintf("%q is there twice", s)
		}
	}
	if i := slices.IndexFunc(r.Scopes, func(s string) bool { return !isScope(s) }); i >= 0 {
		return "Scopes", fmt.Sprintf("%q is not a scope (RFC 6749, section 3.3)", r.Scopes[i])
	}
	if !utf8.ValidString(r.Name) || strings.ContainsFunc(r.Name, unicode.IsControl) {
		return "Name", fmt.Sprintf("%q: want text in UTF-8, in one line", r.Name)
	}
	if r.Documentation != "" {
		if problem := checkWebURL(r.Documentation); problem != "" {
			return "Documentation", problem
		}
	}
	return "", ""
}

// checkIssuerURL says why a URL cannot be that of an issuer or a resource, or "". Both
// have no query here (RFC 8414, section 2; RFC 9728, section 1.2, advises against one).
func checkIssuerURL(text string) (problem string) {
	if strings.Contains(text, "?") {
		return "want a URL without query"
	}
	return checkWebURL(text)
}

// checkWebURL says why a URL cannot go into a header or a document, or "". The problem leaves out the
// URL, which may hold a password.
func checkWebURL(text string) (problem string) {
	u, err := url.Parse(text)
	switch {
	case !isPlain(text) || strings.Contains(text, " "):
		return "want a URL in ASCII, without spaces, quotes and backslashes"
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return "want an absolute URL"
	case u.User != nil || strings.Contains(text, "#"):
		return "want a URL without user and fragment"
	case strings.HasPrefix(text, "https://"), strings.HasPrefix(text, "http://") && isLoopback(u.Hostname()):
		return ""
	}
	return "want https (http is for loopback alone)"
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
