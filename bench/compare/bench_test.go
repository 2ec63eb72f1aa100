package compare

import "testing"

// BenchmarkVerify checks one token in full: alg, signature, exp, nbf, iss and aud.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"HS256", "ES256", "RS256", "EdDSA"} {
		k := newKey(b, alg)
		token := k.token(b, payload)
		if alg != "HS256" {
			b.Run("alg="+alg+"/lib=stdlib", func(b *testing.B) {
				verify := stdlib(b, k, token)
				b.ReportAllocs()
				for b.Loop() {
					if !verify() {
						b.Fatal("bad signature")
					}
				}
			})
		}
		for _, lib := range libraries {
			b.Run("alg="+alg+"/lib="+lib.name, func(b *testing.B) {
				verify := lib.verifier(b, k)
				b.ReportAllocs()
				for b.Loop() {
					if err := verify(token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSign signs nine claims.
func BenchmarkSign(b *testing.B) {
	k := newKey(b, "HS256")
	for _, lib := range libraries {
		b.Run("alg=HS256/lib="+lib.name, func(b *testing.B) {
			sign := lib.signer(b, k)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sign(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
