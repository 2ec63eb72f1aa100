// Signs and verifies tokens with the libraries that Node services use. It reads one request per
// line of standard input, and answers each with one line:
//
//	{"lib":"jose","op":"sign","alg":"ES256","key":"<PEM>","kid":"1","claims":{...}}  -> {"token":"..."}
//	{"lib":"jose","op":"verify","alg":"ES256","key":"<PEM>","iss":"...","aud":"...","token":"..."}  -> {"claims":{...}}
//
// and {"error":"..."} where the library says no. A key for HS* is base64 in "secret" instead.
import { createPrivateKey, createPublicKey, webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'

globalThis.crypto ??= webcrypto // Node 18, Debian 12's, has both but does not show them
globalThis.CryptoKey ??= webcrypto.CryptoKey

const jose = await import('jose')
const { default: jsonwebtoken } = await import('jsonwebtoken')
const { createSigner, createVerifier } = await import('fast-jwt')

const secret = (r) => Buffer.from(r.secret, 'base64')

const libs = {
  jose: {
    async sign(r) {
      const key = r.secret ? secret(r) : await jose.importPKCS8(r.key, r.alg)
      return new jose.SignJWT(r.claims).setProtectedHeader({ alg: r.alg, kid: r.kid, typ: 'JWT' }).sign(key)
    },
    async verify(r) {
      const key = r.secret ? secret(r) : await jose.importSPKI(r.key, r.alg)
      const { payload } = await jose.jwtVerify(r.token, key, { algorithms: [r.alg], issuer: r.iss, audience: r.aud })
      return payload
    },
  },

  jsonwebtoken: {
    sign(r) {
      const key = r.secret ? secret(r) : createPrivateKey(r.key)
      return jsonwebtoken.sign(r.claims, key, { algorithm: r.alg, keyid: r.kid })
    },
    verify(r) {
      const key = r.secret ? secret(r) : createPublicKey(r.key)
      return jsonwebtoken.verify(r.token, key, { algorithms: [r.alg], issuer: r.iss, audience: r.aud })
    },
  },

  'fast-jwt': {
    sign(r) {
      return createSigner({ key: r.secret ? secret(r) : r.key, algorithm: r.alg, kid: r.kid })(r.claims)
    },
    verify(r) {
      const key = r.secret ? secret(r) : r.key
      return createVerifier({ key, algorithms: [r.alg], allowedIss: r.iss, allowedAud: r.aud })(r.token)
    },
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const r = JSON.parse(line)
    const out = await libs[r.lib][r.op](r)
    answer = r.op === 'sign' ? { token: out } : { claims: out }
  } catch (e) {
    answer = { error: `${e.code ?? e.name}: ${e.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
