// node_server.js HTTP_PORT NET_PORT FOLDER [WORKERS]: HTTP that digests uploads and streams files, and an echo; in
// worker processes if so many are asked for.
const cluster = require('cluster'), crypto = require('crypto'), fs = require('fs'), http = require('http')
const net = require('net'), path = require('path')
const [httpPort, netPort, folder, workers] = process.argv.slice(2)

function serve() {
  const server = http.createServer((request, response) => {
    if (request.method === 'POST') {
      const hash = crypto.createHash('sha256')
      request.on('data', data => hash.update(data))
      request.on('end', () => response.end(hash.digest('hex')))
    } else if (request.url === '/pid') {
      response.end(String(process.pid))
    } else {
      const stream = fs.createReadStream(path.join(folder, path.basename(request.url)))
      stream.on('error', () => { response.statusCode = 404; response.end() })
      stream.pipe(response)
    }
  })
  server.listen(Number(httpPort), '0.0.0.0')
  net.createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {})
    socket.pipe(socket)
  }).listen(Number(netPort), '0.0.0.0')
}

if (workers && cluster.isPrimary) {
  for (let i = 0; i < Number(workers); i++) cluster.fork()
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill()
    process.exit(0)
  })
} else {
  serve()
  process.on('SIGTERM', () => process.exit(0))
}
