// Verifies tokens as Node services do that know an issuer by its JWK Set. The set's URL is the
// argument. Each line of standard input is a request, answered with a line:
//
//	{"lib":"jose","token":"..."}                -> {"subject":"ann"}
//	{"lib":"jose","token":"...","fresh":true}    the same, with a new reader
//
// and {"error":"..."} where the library says no. Unless told otherwise a reader lives as long as this
// process, and caches as it does out of the box.
import { webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'

globalThis.crypto ??= webcrypto // Node 18, Debian 12's, has both but does not show them
globalThis.CryptoKey ??= webcrypto.CryptoKey

const jose = await import('jose')
const { default: jsonwebtoken } = await import('jsonwebtoken')
const { default: jwksRsa } = await import('jwks-rsa')
const { createVerifier, createDecoder } = await import('fast-jwt')
const { default: buildGetJwks } = await import('get-jwks')

const url = process.argv[2]
const algorithms = ['ES256']

const libs = {
  jose() {
    const keys = jose.createRemoteJWKSet(new URL(url))
    return async (token) => (await jose.jwtVerify(token, keys, { algorithms })).payload
  },

  'jwks-rsa'() {
    const client = jwksRsa({ jwksUri: url })
    const key = (header, done) =>
      client.getSigningKey(header.kid).then((k) => done(null, k.getPublicKey()), (e) => done(e))
    return (token) =>
      new Promise((yes, no) => {
        jsonwebtoken.verify(token, key, { algorithms }, (e, claims) => (e ? no(e) : yes(claims)))
      })
  },

  'fast-jwt'() {
    const domain = url.replace('.well-known/jwks.json', '')
    const getJwks = buildGetJwks({ issuersWhitelist: [domain] })
    const decode = createDecoder({ complete: true })
    const key = async (token) => {
      const { kid, alg } = (token.header ? token : decode(token)).header
      return getJwks.getPublicKey({ kid, alg, domain })
    }
    return createVerifier({ key, algorithms })
  },
}

const readers = {}

for await (const line of createInterface({ input: process.stdin })) {
  const { lib, token, fresh } = JSON.parse(line)
  let answer
  try {
    const reader = fresh ? libs[lib]() : (readers[lib] ??= libs[lib]())
    answer = { subject: (await reader(token)).sub }
  } catch (e) {
    answer = { error: `${e.code ?? e.name}: ${e.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
