// Asks a server about a token as a Node service does that leaves the check to it, and then revokes the
// token: RFC 7662 and RFC 7009, by openid-client. The arguments are the server's URL and the client; the
// first line of standard input is the client's secret, and the second the token. It prints what the
// server says before and after:
//
//	[{"active":true,...},{"active":false}]
import { createInterface } from 'node:readline'
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18 has it, but does not show it

const { Configuration, ClientSecretBasic, allowInsecureRequests, tokenIntrospection, tokenRevocation } = await import('openid-client')

const [server, client] = process.argv.slice(2)
const lines = []
for await (const line of createInterface({ input: process.stdin })) lines.push(line)
const [secret, token] = lines
const config = new Configuration({
  issuer: server, introspection_endpoint: `${server}/introspect`, revocation_endpoint: `${server}/revoke`,
}, client, undefined, ClientSecretBasic(secret))
allowInsecureRequests(config)

const before = await tokenIntrospection(config, token)
await tokenRevocation(config, token)
console.log(JSON.stringify([before, await tokenIntrospection(config, token)]))
