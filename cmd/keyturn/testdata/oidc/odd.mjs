// Prints tokens that depart from the standards, as signers on Node make them, and their key:
//
//	{"set":{"keys":[...]},"tokens":{"plain":"...","numeric-sub":"..."}}
//
// Each token is named after the tolerance that it needs; plain needs none.
import { generateKeyPairSync, sign, webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18 has both, but does not show them
globalThis.CryptoKey ??= webcrypto.CryptoKey

const { default: jsonwebtoken } = await import('jsonwebtoken')
const { SignJWT, exportJWK } = await import('jose')

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const exp = Math.floor(Date.now() / 1000) + 3600
const header = { alg: 'ES256', kid: 'k1' }
const jose = (claims, more = {}) => new SignJWT({ exp, ...claims }).setProtectedHeader({ ...header, ...more }).sign(privateKey)

// padded is made by hand, as AWS' load balancers do: every part is padded, and the signature covers it.
const base64 = (bytes) => Buffer.from(bytes).toString('base64').replaceAll('+', '-').replaceAll('/', '_')
const padded = (claims) => {
  const input = base64(JSON.stringify(header)) + '.' + base64(JSON.stringify({ exp, ...claims }))
  return input + '.' + base64(sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' }))
}

process.stdout.write(JSON.stringify({
  set: { keys: [{ ...await exportJWK(publicKey), kid: 'k1' }] },
  tokens: {
    plain: await jose({ sub: 'ann' }),
    'numeric-sub': jsonwebtoken.sign({ sub: 42, exp }, privateKey, { algorithm: 'ES256', keyid: 'k1' }),
    cty: await jose({ sub: 'ann' }, { cty: 'JWT' }),
    'null-members': await jose({ sub: 'ann', jti: null }),
    zip: jsonwebtoken.sign({ sub: 'ann', exp }, privateKey, { algorithm: 'ES256', keyid: 'k1', header: { zip: 'RS256' } }), // LinkedIn
    padding: padded({ sub: 'ann' }),
  },
}) + '\n')
