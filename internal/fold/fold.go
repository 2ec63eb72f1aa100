// Package fold compares header names as the loosest programs do. HTTP does not tell upper and lower
// case apart (RFC 9110, section 5.1). CGI, WSGI and their kin make _ of every character that is
// neither a letter nor a digit (RFC 3875, section 4.1.18), so they take X-Auth-Subject and
// X_Auth.Subject for the same header. A proxy that compares names more strictly lets an alias of a
// header through: https://github.com/oauth2-proxy/oauth2-proxy/security/advisories/GHSA-vjrc-mh2v-45x6
package fold

// Name returns the folded name: lower case, and a hyphen for every byte that is neither a letter nor a
// digit. Two names with the same folded name may be the same header for some program.
func Name(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = Byte(c)
	}
	return string(b)
}

// Byte folds one byte of a name.
func Byte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + ('a' - 'A')
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}

// HasPrefix reports whether the folded name begins with prefix, which is folded already. It does not
// allocate.
func HasPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if Byte(name[i]) != prefix[i] {
			return false
		}
	}
	return true
}
