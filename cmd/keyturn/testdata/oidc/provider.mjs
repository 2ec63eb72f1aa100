// An OpenID provider on a loopback port, with the keys of its input. Each line of standard input is
// {"keys":[...]}, a set of private JWKs of which the first one signs: the provider starts anew with
// them, on the port that it had before, and says so in a line:
//
//	{"issuer":"http://127.0.0.1:1234"}
//
// Whoever posts grant_type=client_credentials to /token as orders, with orders-secret, gets an access
// token that is a JWT (RFC 9068).
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18 has it, but does not show it

console.info = console.error // standard output is for answers

const { Provider } = await import('oidc-provider')

const resource = 'https://orders.example'
let handle
const server = createServer((req, res) => handle(req, res))
await new Promise((done) => server.listen(0, '127.0.0.1', done))
const issuer = `http://127.0.0.1:${server.address().port}`

for await (const line of createInterface({ input: process.stdin })) {
  const { keys } = JSON.parse(line)
  const alg = keys[0].alg
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'orders', client_secret: 'orders-secret', grant_types: ['client_credentials'],
      redirect_uris: [], response_types: [], id_token_signed_response_alg: alg,
    }],
    enabledJWA: { idTokenSigningAlgValues: [...new Set(keys.map((k) => k.alg))] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        getResourceServerInfo: () => ({
          scope: 'read', audience: 'orders', accessTokenTTL: 600, accessTokenFormat: 'jwt', jwt: { sign: { alg } },
        }),
      },
    },
  })
  handle = provider.callback()
  process.stdout.write(JSON.stringify({ issuer }) + '\n')
}
process.exit(0)
