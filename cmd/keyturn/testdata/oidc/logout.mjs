// An OpenID provider on a loopback port that tells a service of its users' logouts: OpenID Connect
// Back-Channel Logout 1.0. The first line of standard input is
//
//	{"keys":[...],"logout":"http://127.0.0.1:1/backchannel-logout"}
//
// a set of private JWKs of which the first one signs, and where logout tokens go. The answer is
// {"issuer":"http://127.0.0.1:1234"}. Then each line has a browser do something:
//
//	{"browser":"a","login":"ann"}   logs a user in: the answer is {"token":"...","sid":"..."}
//	{"browser":"a","logout":true}   logs out: {"sent":true}, or false with an "error"
//
// A token is an access token that is a JWT (RFC 9068), with sid as the provider names the session.
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18 has it, but does not show it

console.info = console.error // standard output is for answers
console.warn = console.error

const { Provider } = await import('oidc-provider')

const resource = 'https://orders.example'
const redirect = 'https://shop.example/callback'
const basic = 'Basic ' + Buffer.from('shop:shop-secret').toString('base64')
const say = (answer) => process.stdout.write(JSON.stringify(answer) + '\n')

// A browser keeps cookies, and follows redirects until one leaves the provider.
class Browser {
  cookies = new Map()

  async ask(url, form) {
    for (;;) {
      const res = await fetch(url, {
        method: form ? 'POST' : 'GET', body: form && new URLSearchParams(form), redirect: 'manual',
        headers: { cookie: [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      })
      for (const line of res.headers.getSetCookie()) {
        const [, name, value] = line.match(/^([^=]+)=([^;]*)/)
        this.cookies.set(name, value)
      }
      const to = res.headers.get('location')
      if (!to) return { url, body: await res.text() }
      url = new URL(to, url).href
      form = undefined
      if (!url.startsWith(issuer)) return { url }
    }
  }

  async login(user) {
    const params = new URLSearchParams({ client_id: 'shop', response_type: 'code', redirect_uri: redirect, scope: 'openid read', prompt: 'login consent' })
    let at = await this.ask(`${issuer}/auth?${params}`)
    at = await this.ask(at.url, { prompt: 'login', login: user, password: 'x' })
    at = await this.ask(at.url, { prompt: 'consent' })
    const code = new URL(at.url).searchParams.get('code')
    const res = await fetch(`${issuer}/token`, {
      method: 'POST', headers: { authorization: basic },
      body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: redirect }),
    })
    const { access_token: token, id_token: id } = await res.json()
    return { token, sid: JSON.parse(Buffer.from(id.split('.')[1], 'base64url')).sid }
  }

  async logout() {
    const { body } = await this.ask(`${issuer}/session/end?client_id=shop`)
    const [, xsrf] = body.match(/name="xsrf" value="([^"]+)"/)
    outcome = { sent: false, error: 'no logout token was sent' }
    await this.ask(`${issuer}/session/end/confirm`, { xsrf, logout: 'yes' })
    return outcome
  }
}

let handle, issuer, outcome
const browsers = new Map()
const server = createServer((req, res) => handle(req, res))
await new Promise((done) => server.listen(0, '127.0.0.1', done))
issuer = `http://127.0.0.1:${server.address().port}`

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line)
  if (told.keys) {
    const alg = told.keys[0].alg
    const provider = new Provider(issuer, {
      jwks: { keys: told.keys },
      cookies: { keys: ['of a test'] },
      clients: [{
        client_id: 'shop', client_secret: 'shop-secret', redirect_uris: [redirect], id_token_signed_response_alg: alg,
        backchannel_logout_uri: told.logout, backchannel_logout_session_required: true,
      }],
      enabledJWA: { idTokenSigningAlgValues: [alg] },
      pkce: { required: () => false },
      extraTokenClaims: (ctx) => ({ sid: ctx.oidc.entities.AuthorizationCode?.sid }),
      features: {
        devInteractions: { enabled: true },
        backchannelLogout: { enabled: true },
        rpInitiatedLogout: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => resource,
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            scope: 'read', audience: 'orders', accessTokenTTL: 600, accessTokenFormat: 'jwt', jwt: { sign: { alg } },
          }),
        },
      },
    })
    provider.on('backchannel.success', () => { outcome = { sent: true } })
    provider.on('backchannel.error', (ctx, err) => { outcome = { sent: false, error: err.message } })
    handle = provider.callback()
    say({ issuer })
    continue
  }
  if (!browsers.has(told.browser)) browsers.set(told.browser, new Browser())
  const browser = browsers.get(told.browser)
  say(await (told.login ? browser.login(told.login) : browser.logout()))
}
process.exit(0)
