// A real Mastra server with the agent of the guide, whose model is a mock: it calls no service. It prints
// its port. It has no auth of its own: keyturn stands in front of it. With a secret as its argument it has,
// as with MastraJwtAuth: it wants a token under that secret.
import { createHmac } from 'node:crypto'
import { serve } from '@hono/node-server'
import { Agent } from '@mastra/core/agent'
import { Mastra } from '@mastra/core/mastra'
import { MastraServer } from '@mastra/hono'
import { Hono } from 'hono'

const text = 'It rains in London.'
const usage = { inputTokens: 1, outputTokens: 1, totalTokens: 2 }
const model = {
  specificationVersion: 'v2',
  provider: 'mock',
  modelId: 'mock',
  supportedUrls: {},
  doGenerate: async () => ({ content: [{ type: 'text', text }], finishReason: 'stop', usage, warnings: [] }),
  doStream: async () => ({
    stream: new ReadableStream({
      start(c) {
        c.enqueue({ type: 'stream-start', warnings: [] })
        c.enqueue({ type: 'text-start', id: '1' })
        for (const delta of text.split(/(?<= )/)) c.enqueue({ type: 'text-delta', id: '1', delta })
        c.enqueue({ type: 'text-end', id: '1' })
        c.enqueue({ type: 'finish', finishReason: 'stop', usage })
        c.close()
      },
    }),
  }),
}
const weatherAgent = new Agent({ id: 'weatherAgent', name: 'weatherAgent', instructions: 'Say the weather.', model })
const secret = process.argv[2]
const auth = {
  authenticateToken: async (token) => {
    const [header, payload, signature] = token.split('.')
    const good = createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url')
    return signature === good ? JSON.parse(Buffer.from(payload, 'base64url')) : null
  },
  authorize: async () => true,
}
const mastra = new Mastra({ agents: { weatherAgent }, logger: false, ...(secret && { server: { auth } }) })

const app = new Hono()
// What it is asked with, for the tests of headers that a client forges.
app.use('*', async (c, next) => {
  console.log('headers', JSON.stringify(c.req.header()))
  await next()
})
await new MastraServer({ app, mastra }).init()
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, ({ port }) => console.log(port))
