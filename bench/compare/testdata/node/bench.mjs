// Measures the libraries that Node services use. Each line of standard input is a request, answered
// with a line:
//
//	{"open":{"lib":"fast-jwt","cache":true},"secret":"<base64>","iss":"...","aud":"...","tokens":["..."]}
//	  -> {"misses":0}    from now on that library checks those tokens; each was checked before
//	{"checks":1000}                 -> {"ns":123456}    they took so long, one token after another
//	{"check":"<token>","at":<ms>}   -> {"ok":true}      at a time in Unix milliseconds
//
// and {"error":"..."} where something went wrong.
import { createSecretKey } from 'node:crypto'
import { createInterface } from 'node:readline'
import jsonwebtoken from 'jsonwebtoken'
import { createVerifier } from 'fast-jwt'

const libs = {
  'fast-jwt': ({ key, iss, aud, tokens }, { cache }) =>
    createVerifier({
      key,
      algorithms: ['HS256'],
      allowedIss: iss,
      allowedAud: aud,
      requiredClaims: ['exp', 'iss', 'aud'],
      ...(cache && { cache: 2 * tokens.length }),
    }),

  // With a string for a secret, the library tries first whether that is a public key.
  jsonwebtoken({ key, iss, aud }, { prepared }) {
    const secret = prepared ? createSecretKey(key) : key.toString('latin1')
    return (token) => jsonwebtoken.verify(token, secret, { algorithms: ['HS256'], issuer: iss, audience: aud })
  },
}

let verify, tokens, next = 0

const ops = {
  open(r) {
    tokens = r.tokens
    next = 0
    verify = libs[r.open.lib]({ ...r, key: Buffer.from(r.secret, 'base64') }, r.open)
    for (const token of tokens) verify(token)
    if (!r.open.cache) return {}
    // fast-jwt returns the very object that it remembers, so a miss shows by another one.
    const seen = tokens.map((token) => verify(token))
    return { misses: tokens.filter((token, i) => verify(token) !== seen[i]).length }
  },
  checks(r) {
    const start = process.hrtime.bigint()
    for (let i = 0; i < r.checks; i++) {
      verify(tokens[next])
      if (++next === tokens.length) next = 0
    }
    return { ns: Number(process.hrtime.bigint() - start) }
  },
  check(r) {
    const { now } = Date
    Date.now = () => r.at
    try {
      verify(r.check)
      return { ok: true }
    } catch (e) {
      return { ok: false, why: e.code ?? e.message }
    } finally {
      Date.now = now
    }
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const r = JSON.parse(line)
    answer = ops[Object.keys(ops).find((op) => op in r)](r)
  } catch (e) {
    answer = { error: `${e.code ?? e.name}: ${e.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
