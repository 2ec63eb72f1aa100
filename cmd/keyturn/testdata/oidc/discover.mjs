// Verifies a token as a Node service does that knows nothing but an issuer: its URL and the token are
// the arguments. It prints the token's subject.
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18 has both, but does not show them
globalThis.CryptoKey ??= webcrypto.CryptoKey

const { discovery, allowInsecureRequests } = await import('openid-client')
const { createRemoteJWKSet, jwtVerify } = await import('jose')

const [issuer, token] = process.argv.slice(2)
const config = await discovery(new URL(issuer), 'orders', undefined, undefined, { execute: [allowInsecureRequests] })
const { jwks_uri, id_token_signing_alg_values_supported: algorithms } = config.serverMetadata()
const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(jwks_uri)), { issuer, algorithms })
process.stdout.write(payload.sub + '\n')
