package ring

import "fmt"

// A ClaimsError says why rotation.Signer.Sign does not put claims into a token. It holds no claim's value,
// so it may be logged.
type ClaimsError struct {
	Type  string // the Go type of the claims
	Claim string // the registered claim (RFC 7519, section 4.1) whose value is not of its type, or ""
	Err   error  // why they are refused, or nil if they cannot be encoded as JSON
}

// Error returns the fields as one line.
func (e *ClaimsError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("rotation: the claims, a %s, cannot be encoded as JSON", e.Type)
	}
	return fmt.Sprintf("rotation: the claims, a %s: %v", e.Type, e.Err)
}

// Unwrap returns Err.
func (e *ClaimsError) Unwrap() error { return e.Err }
