// The page: the sheet on the left, and the four nets' answers for the same drawing.

const told = JSON.parse(document.getElementById('nets').textContent)
const tables = {}                                          // of each net, by name
for (const [name, net] of Object.entries(told)) {
  const decoded = Object.entries(net.tables).map(([key, table]) => [key, decode(table)])
  tables[name] = Object.fromEntries(decoded)
}

const run = {average: linearNet, linear: linearNet, two_layer: twoLayerNet, small_conv: smallConvNet}
const largest = values => values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9)
const rowOf = ({shape, data}, row) => data.slice(row*shape[1], (row + 1)*shape[1])

function tiled({shape: [k, h, w], data}, across) {         // maps side by side, as one picture
  const high = Math.ceil(k/across), picture = new Float32Array(k*h*w)
  data.forEach((value, i) => {
    const map = Math.floor(i/(h*w)), row = Math.floor(i/w) % h, col = i % w
    picture[(Math.floor(map/across)*h + row)*across*w + (map % across)*w + col] = value
  })
  return {columns: across*w, values: picture, rows: high*h}
}

const inside = {                                           // what is drawn beside each answer
  average: (best, {}, net) => ({values: rowOf(net.weight, best), columns: 28, colour: ink,
                                label: `The average ${best}`}),
  linear: (best, {}, net) => ({values: rowOf(net.weight, best), columns: 28, colour: signed,
                               label: `The weights for ${best}: red counts for it, blue against it`}),
  two_layer: (best, {hidden}) => ({values: hidden, columns: 10, colour: glow,
                                   label: `${hidden.filter(unit => unit > 0).length} of ${hidden.length} hidden units are lit`}),
  small_conv: (best, {maps}) => ({...tiled(maps, 4), colour: glow, label: `The ${maps.shape[0]} maps of the first convolution`}),
}

const cards = Array.from(document.querySelectorAll('[data-net]'), card => {
  const name = card.dataset.net, {numbers, accuracy} = told[name], bars = barList()
  card.querySelector('.answer').after(bars.list)
  card.querySelector('.facts').textContent = `${numbers.toLocaleString('en')} numbers` +
    (accuracy === null ? '' : `; reads ${(100*accuracy).toFixed(1)}% of the test images`)
  return {name, card, bars, title: card.querySelector('h2').textContent,
          digit: card.querySelector('.digit'), picture: card.querySelector('canvas')}
})

function show(card, x) {                                   // returns what to say of it
  const result = x && run[card.name](x, tables[card.name]), probabilities = x && softmax(result.scores)
  const best = x ? probabilities.indexOf(Math.max(...probabilities)) : -1
  card.bars.set(probabilities)
  card.digit.textContent = x ? best : '–'
  card.card.classList.toggle('waiting', !x)
  const view = x ? inside[card.name](best, result, tables[card.name])
    : {values: [0], columns: 1, colour: ink, label: 'No answer yet'}
  const scale = largest(view.values)
  showTable(card.picture, Array.from(view.values, value => value/scale), view.columns, view.colour)
  card.picture.setAttribute('aria-label', view.label)
  return x && {name: card.name, title: card.title, best, probabilities}
}

const seen = document.getElementById('seen')

function read(pixels, height, width) {
  const began = performance.now(), x = asMnist(pixels, height, width)
  showTable(seen, x ? x.data : new Float32Array(784), 28, ink)
  seen.setAttribute('aria-label', x ? 'The drawing in 28 by 28 pixels' : 'A blank sheet')
  const answers = cards.map(card => show(card, x))
  const last = answers[answers.length - 1]
  sheet.announce(x ? `Read as ${last.best}, ${percent(last.probabilities[last.best])}. ` +
    answers.slice(0, -1).map(answer => `${answer.title}: ${answer.best}`).join(', ') : 'The sheet is blank')
  document.body.dataset.milliseconds = (performance.now() - began).toFixed(1)      // for who asks how long it took
}

const sheet = drawingCanvas(read)
document.getElementById('sheet').replaceWith(sheet.element)
read(new Float32Array(SIDE*SIDE), SIDE, SIDE)
