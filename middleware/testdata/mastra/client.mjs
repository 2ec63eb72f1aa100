// Calls an agent with the real MastraClient, as the guide says, and prints what came of it as one
// line of JSON: {"ok":true,"result":...} or {"ok":false,"status":401,"error":"..."}.
//
// MASTRA_BASE_URL is where the server is, MASTRA_JWT_TOKEN the token; without it no Authorization
// header is sent.
import { MastraClient } from '@mastra/client-js'

const token = process.env.MASTRA_JWT_TOKEN

const client = new MastraClient({
  baseUrl: process.env.MASTRA_BASE_URL,
  headers: token ? { Authorization: `Bearer ${token}` } : {},
  retries: 0, // a 5xx is an answer here, not a reason to ask again
})

let line
try {
  const result = await client.getAgent('weatherAgent').generate('Weather in London')
  line = { ok: true, result }
} catch (e) {
  line = { ok: false, status: e.status, error: String(e.message ?? e), body: e.body }
}
console.log(JSON.stringify(line))
