// A sheet to draw a digit on, with mouse, finger, pen or keys. A drawing is a list of strokes, and a stroke a list of
// points [x, y] from 0 to 280, whatever the size of the sheet on the screen: so undo takes a stroke away.

const SIDE = 280, PEN = 22, STEP = 7                       // pixels; STEP is what an arrow key moves

function addLine(ink, [x0, y0], [x1, y1]) {                // ink by the distance of each pixel from the line
  const reach = PEN/2 + 1, dx = x1 - x0, dy = y1 - y0, long = dx*dx + dy*dy
  const from = z => Math.max(Math.floor(z - reach), 0), to = z => Math.min(Math.ceil(z + reach), SIDE)
  for (let r = from(Math.min(y0, y1)); r < to(Math.max(y0, y1)); r++)
    for (let c = from(Math.min(x0, x1)); c < to(Math.max(x0, x1)); c++) {
      const x = c + .5 - x0, y = r + .5 - y0
      const along = long ? Math.min(Math.max((x*dx + y*dy)/long, 0), 1) : 0
      const value = Math.min(PEN/2 + .5 - Math.hypot(x - along*dx, y - along*dy), 1)
      if (value > ink[r*SIDE + c]) ink[r*SIDE + c] = value
    }
}

function addStroke(ink, stroke) {
  stroke.forEach((point, i) => addLine(ink, stroke[Math.max(i - 1, 0)], point))
}

function inkOf(strokes) {                                  // Float32Array of 280 by 280, paper 0 and ink 1
  const ink = new Float32Array(SIDE*SIDE)
  for (const stroke of strokes) addStroke(ink, stroke)
  return ink
}

let sheets = 0                                             // for ids that no other sheet of the page has

function drawingCanvas(onchange) {                         // calls onchange(ink, 280, 280) after each change
  const id = `sheet-${++sheets}-${Math.random().toString(36).slice(2, 8)}`
  const element = document.createElement('div')
  element.className = 'sheet'
  element.innerHTML = `
    <div class="paper">
      <canvas tabindex="0" role="application" aria-label="Sheet to draw a digit on" aria-describedby="${id}"></canvas>
      <p class="invitation" aria-hidden="true">Draw a digit</p>
    </div>
    <div class="tools"><button type="button">Undo</button><button type="button">Clear</button></div>
    <p class="help" id="${id}">With keys: <kbd>arrows</kbd> move, <kbd>Space</kbd> puts the pen down and lifts it,
      <kbd>Ctrl</kbd>+<kbd>Z</kbd> undoes, <kbd>Esc</kbd> clears.</p>
    <p class="unseen" aria-live="polite"></p><p class="unseen" aria-live="polite"></p>`
  const canvas = element.querySelector('canvas'), pen = canvas.getContext('2d')
  const [undoButton, clearButton] = element.querySelectorAll('button')
  const [penSays, answerSays] = element.querySelectorAll('[aria-live]')
  let strokes = [], ink = inkOf(strokes), drawing = null   // the stroke that is being drawn
  let pointer = null, cursor = null, penDown = false, waiting = 0, talking = 0
  const held = new Set()                                   // arrow keys

  function paint() {                                       // the screen's pixels, which may be finer
    const fine = canvas.width/SIDE
    pen.setTransform(fine, 0, 0, fine, 0, 0)
    pen.clearRect(0, 0, SIDE, SIDE)
    pen.lineWidth = PEN
    pen.lineCap = pen.lineJoin = 'round'
    pen.strokeStyle = '#16181d'
    for (const stroke of strokes) {
      pen.beginPath()
      pen.moveTo(...stroke[0])
      for (const point of stroke) pen.lineTo(...point)
      pen.stroke()
    }
    element.classList.toggle('blank', !strokes.length && !cursor)
    if (!cursor) return
    pen.beginPath()
    pen.arc(...cursor, PEN/2 + 3, 0, 2*Math.PI)
    pen.lineWidth = 3
    pen.strokeStyle = '#b3261e'
    pen.setLineDash(penDown ? [] : [6, 5])
    pen.stroke()
    pen.setLineDash([])
  }

  function changed() {                                     // once for all that happens in a frame
    paint()
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; onchange(ink, SIDE, SIDE) })
  }

  function begin(point) {
    drawing = [point]
    strokes.push(drawing)
    addLine(ink, point, point)
    changed()
  }

  function move(point) {
    const last = drawing[drawing.length - 1]
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < 1) return
    drawing.push(point)
    addLine(ink, last, point)
    changed()
  }

  function lift(said) {
    drawing = pointer = null
    if (penDown && said) penSays.textContent = said
    penDown = false
    paint()
  }

  function setStrokes(list) {
    lift()
    strokes = list
    ink = inkOf(strokes)
    changed()
  }

  const undo = () => { setStrokes(strokes.slice(0, -1)); penSays.textContent = 'Last stroke undone' }
  const clear = () => { setStrokes([]); penSays.textContent = 'Sheet cleared' }

  function place(event) {
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left)*SIDE/box.width, (event.clientY - box.top)*SIDE/box.height]
  }

  canvas.addEventListener('pointerdown', event => {
    if (pointer !== null || event.button) return           // a second finger, or another button
    lift()
    cursor = null
    pointer = event.pointerId
    canvas.setPointerCapture(pointer)
    begin(place(event))
  })
  canvas.addEventListener('pointermove', event => {
    if (event.pointerId !== pointer) return
    const between = event.getCoalescedEvents?.() ?? []
    for (const each of between.length ? between : [event]) move(place(each))
  })
  for (const end of ['pointerup', 'pointercancel', 'lostpointercapture'])
    canvas.addEventListener(end, event => { if (event.pointerId === pointer) lift() })

  const arrows = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]}

  function step() {                                        // two keys at once go along a diagonal
    cursor ??= [SIDE/2, SIDE/2]
    for (const key of held) cursor = cursor.map((z, i) => Math.min(Math.max(z + arrows[key][i], 0), SIDE))
    if (penDown) move(cursor)
    paint()
  }

  function togglePen() {
    cursor ??= [SIDE/2, SIDE/2]
    if (penDown) return lift('Pen lifted')
    penDown = true
    penSays.textContent = 'Pen down'
    begin(cursor)
  }

  canvas.addEventListener('keydown', event => {
    const control = event.ctrlKey || event.metaKey, key = event.key
    if (control && key.toLowerCase() === 'z' && !event.shiftKey) undo()
    else if (control || event.altKey) return
    else if (key in arrows) { held.add(key); step() }
    else if (key === ' ' || key === 'Enter') { if (!event.repeat) togglePen() }
    else if (key === 'Escape' || key === 'Delete' || key === 'Backspace') clear()
    else return
    event.preventDefault()
    event.stopPropagation()                                // a notebook has other plans with these keys
  })
  canvas.addEventListener('keyup', event => held.delete(event.key))
  canvas.addEventListener('blur', () => { held.clear(); cursor = null; lift('Pen lifted') })
  canvas.dataset.lmSuppressShortcuts = 'true'              // and JupyterLab hears of them before we do
  undoButton.addEventListener('click', undo)
  clearButton.addEventListener('click', clear)

  new ResizeObserver(() => {
    canvas.width = canvas.height = Math.max(Math.round(canvas.clientWidth*(globalThis.devicePixelRatio || 1)), 1)
    paint()
  }).observe(canvas)
  paint()

  function announce(text) {                                // to a screen reader, once the hand rests
    clearTimeout(talking)
    talking = setTimeout(() => { answerSays.textContent = text }, 700)
  }

  return {element, announce, get strokes() { return strokes }}
}
