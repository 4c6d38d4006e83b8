// The post's Express app: a few routes worth watching, and its own metrics on /metrics.
//
//     node app.js --port 8081

const express = require('express')
const prometheus = require('express-prometheus-middleware')
const { Counter } = require('prom-client')

const SLEEP_MS_MAX = 2000

const app = express()

app.use(prometheus({
  metricsPath: '/metrics',
  collectDefaultMetrics: true,
  // A bot that tries ten thousand paths must not make ten thousand series.
  transformLabels: (labels, request) => {
    labels.route = request.route ? request.route.path : 'none'
  }
}))

// Its label is one of a known few: what a stranger writes into a path must not become series.
const events = new Counter({ name: 'events_by_type_total', help: 'Events by their type', labelNames: ['event_type'] })

app.get('/', (request, response) => {
  response.send('Hello, World!\n')
})

app.get('/hello/:type', (request, response) => {
  const type = ['signup', 'login'].includes(request.params.type) ? request.params.type : 'other'
  events.inc({ event_type: type })
  response.send(`${type}: you have been recorded.\n`)
})

// Sleeps `ms` milliseconds (at most 2000), by chance if not said.
app.get('/slow', (request, response) => {
  const asked = Number.parseInt(request.query.ms, 10)
  const milliseconds = Math.min(SLEEP_MS_MAX, asked >= 0 ? asked : 60 + Math.floor(Math.random() * 340))
  setTimeout(() => response.send(`slept ${milliseconds} ms\n`), milliseconds)
})

app.post('/orders', express.raw({ type: () => true, limit: '1mb' }), (request, response) => {
  response.status(201).json({ bytes: request.body.length ?? 0 })
})

app.get('/broken', (request, response) => {
  response.status(500).send('this route always fails\n')
})

function option (name, otherwise) {
  const place = process.argv.indexOf(`--${name}`)
  return place > 0 ? process.argv[place + 1] : otherwise
}

app.listen(Number(option('port', '8081')), option('host', '127.0.0.1'))
