// What there is to see of an answer: ten bars with their numbers, and small tables of numbers as pictures.

function percent(probability) { return `${Math.round(100*probability)}%` }

function barList() {                                       // an <ol> of ten bars, and how to set them
  const list = document.createElement('ol')
  list.className = 'bars'
  list.setAttribute('aria-label', 'Probability of each digit')
  for (let digit = 0; digit < 10; digit++)
    list.insertAdjacentHTML('beforeend', `<li><span>${digit}</span><span class="bar"><i></i></span><b></b></li>`)
  return {list, set(probabilities) {                       // null: no answer
    const best = probabilities ? Math.max(...probabilities) : 2
    Array.from(list.children).forEach((item, digit) => {
      const probability = probabilities ? probabilities[digit] : 0
      item.querySelector('i').style.width = `${100*probability}%`
      item.querySelector('b').textContent = probabilities ? percent(probability) : ''
      item.classList.toggle('best', probability === best)
    })
  }}
}

function mix(from, to, share) { return from.map((colour, i) => colour + share*(to[i] - colour)) }

function ink(share) { return mix([255, 255, 255], [22, 24, 29], share) }       // white paper, black ink

function glow(share) { return mix([24, 32, 44], [255, 214, 120], share) }      // dark, and lit

function signed(share) {                                   // blue below zero, red above
  return share < 0 ? mix([255, 255, 255], [33, 102, 172], -share) : mix([255, 255, 255], [178, 24, 43], share)
}

function showTable(canvas, values, columns, colour) {      // a pixel of the canvas for each number
  const rows = Math.ceil(values.length/columns)
  canvas.width = columns
  canvas.height = rows
  const context = canvas.getContext('2d'), image = context.createImageData(columns, rows)
  for (let i = 0; i < values.length; i++) image.data.set([...colour(values[i]), 255], 4*i)
  context.putImageData(image, 0, 0)
}
