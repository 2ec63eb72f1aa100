package keystore

import "math/big"

// maxROCAPrime is the largest prime that the generator used for keys of 2048 bits. For longer keys
// it used these and more.
const maxROCAPrime = 701

// hasROCA reports whether n is the modulus of a key from the generator of CVE-2017-15361. Its primes
// were powers of 65537 modulo each small prime, so n is one, too (Nemec et al., "The Return of
// Coppersmith's Attack", ACM CCS 2017). A random modulus is with a chance of 2^-167.
func hasROCA(n *big.Int) bool {
	rest := new(big.Int)
	for p := int64(3); p <= maxROCAPrime; p += 2 {
		prime := big.NewInt(p)
		if prime.ProbablyPrime(0) && !powerOf65537(rest.Mod(n, prime).Int64(), p) {
			return false
		}
	}
	return true
}

// powerOf65537 reports whether r is a power of 65537 modulo p.
func powerOf65537(r, p int64) bool {
	x := int64(1)
	for range p {
		if x == r {
			return true
		}
		x = x * 65537 % p
	}
	return false
}
