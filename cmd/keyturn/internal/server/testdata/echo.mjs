// An upstream in Node: it answers with the headers as Node gives them to programs, and as they came.
import { createServer } from 'node:http'

const server = createServer((req, res) => {
  req.resume()
  req.on('end', () => {
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify({ ...req.headers, raw: req.rawHeaders.join('\n'), trailers: req.rawTrailers.join('\n') }))
  })
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
