// The sheet in a notebook: its pixels go to Python, and Python's answer comes back as `answer`.

const SEND_EVERY = 80                                      // milliseconds: a kernel reads about so fast

function render({model, el}) {
  const bars = barList(), root = document.createElement('div')
  root.className = 'mnist-drawing widget'
  root.innerHTML = `
    <div class="reading">
      <p class="name">Read as</p><p class="digit">–</p>
    </div>
    <div class="views">
      <figure><canvas role="img" class="seen"></canvas><figcaption>as the net sees it</figcaption></figure>
      <figure><canvas role="img" class="units"></canvas><figcaption></figcaption></figure>
    </div>`
  let timer = 0, last = 0, latest = null

  function send() {
    timer = 0
    last = performance.now()
    model.set('pixels', new DataView(Uint8Array.from(latest, ink => Math.round(255*ink)).buffer))
    model.save_changes()
  }
  const sheet = drawingCanvas(pixels => {
    latest = pixels
    timer ||= setTimeout(send, Math.max(last + SEND_EVERY - performance.now(), 0))
  })

  const bytes = view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  const shown = (canvas, values, columns, colour, label) => {
    showTable(canvas, values, columns, colour)
    canvas.setAttribute('aria-label', label)
  }
  function show() {
    const {probabilities, seen, hidden} = model.get('answer'), [picture, units] = root.querySelectorAll('.views canvas')
    const digit = root.querySelector('.digit'), best = probabilities && probabilities.indexOf(Math.max(...probabilities))
    bars.set(probabilities ?? null)
    digit.textContent = probabilities ? best : '–'
    shown(picture, seen ? Array.from(bytes(seen), value => value/255) : new Array(784).fill(0), 28, ink,
          seen ? 'The drawing in 28 by 28 pixels' : 'A blank sheet')
    sheet.announce(probabilities ? `Read as ${best}, ${percent(probabilities[best])}` : 'The sheet is blank')
    root.classList.toggle('waiting', !probabilities)
    units.parentElement.hidden = !model.get('n_hidden')
    if (units.parentElement.hidden) return                 // a model without a hidden layer
    const lit = hidden ? Array.from(bytes(hidden), value => value/255) : new Array(model.get('n_hidden')).fill(0)
    shown(units, lit, Math.ceil(Math.sqrt(lit.length)), glow, `${lit.filter(value => value > 0).length} hidden units are lit`)
    units.nextElementSibling.textContent = `the ${lit.length} hidden units of two layers`
  }

  root.prepend(sheet.element)
  root.querySelector('.reading').append(bars.list)
  el.append(root)
  model.on('change:answer', show)
  show()
  return () => { clearTimeout(timer); model.off('change:answer', show) }
}

export default {render}
