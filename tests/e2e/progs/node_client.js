// node_client.js HOST HTTP_PORT NET_PORT SIZE: uploads over a keepAlive agent, a download, an echo. Prints "ok".
const assert = require('assert'), crypto = require('crypto'), http = require('http'), net = require('net')
const [host, httpPort, netPort, size] = process.argv.slice(2)
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })
const digest = data => crypto.createHash('sha256').update(data).digest('hex')

function request(options, body) {
  return new Promise((resolve, reject) => {
    const sent = http.request({ host, port: httpPort, agent, ...options }, response => {
      const parts = []
      response.on('data', part => parts.push(part))
      response.on('end', () => resolve(Buffer.concat(parts)))
      response.on('error', reject)
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

async function upload(number) {
  const body = crypto.randomBytes(Number(size) + number)
  assert.strictEqual((await request({ method: 'POST', path: '/' }, body)).toString(), digest(body))
}

function echo(number) {
  const data = crypto.randomBytes(Number(size) + number)
  return new Promise((resolve, reject) => {
    const parts = []
    const socket = net.connect({ host, port: Number(netPort), allowHalfOpen: true }, () => socket.end(data))
    socket.on('data', part => parts.push(part))
    socket.on('end', () => (digest(Buffer.concat(parts)) === digest(data) ? resolve() : reject(new Error('the echo differs'))))
    socket.on('error', reject)
  })
}

async function main() {
  const numbers = [...Array(40).keys()]
  await Promise.all(numbers.map(upload))
  const [one, two] = await Promise.all([request({ path: '/big' }), request({ path: '/big' })])
  assert.strictEqual(digest(one), digest(two))
  await Promise.all(numbers.slice(0, 10).map(echo))
  agent.destroy()
  console.log('ok', digest(one))
}

main().catch(error => { console.error(error); process.exit(1) })
