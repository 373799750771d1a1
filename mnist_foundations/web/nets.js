// The nets of the series in plain JavaScript, and what is done to a drawing before they see it. Nothing here knows
// the page. A table of numbers carries its shape: {shape: [784, 100], data: Float32Array}, row after row.

// Numbers out of text: base64 of float16, which has one bit for the sign, five for the exponent, ten for the rest.

function float16(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> 10 & 31, rest = bits & 1023
  return exponent ? sign*(1 + rest/1024)*2**(exponent - 15) : sign*rest*2**-24
}

function decode({shape, base64}) {
  const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))
  return {shape, data: Float32Array.from(new Uint16Array(bytes.buffer), float16)}
}

// The matrix product of chapter 02: (n, p) @ (p, c) -> (n, c).

function matmul(a, b) {
  const [n, p] = a.shape, c = b.shape[1], data = new Float64Array(n*c)
  for (let i = 0; i < n; i++)
    for (let k = 0; k < p; k++) {
      const value = a.data[i*p + k]
      if (value) for (let j = 0; j < c; j++) data[i*c + j] += value*b.data[k*c + j]    // paper adds nothing
    }
  return {shape: [n, c], data}
}

function transposed({shape: [rows, cols], data}) {
  return {shape: [cols, rows], data: Float64Array.from(data, (_, i) => data[(i % rows)*cols + Math.floor(i/rows)])}
}

// As MNIST was made (chapter 12): cut to the ink, the longer side 20 pixels, the centre of mass in the middle.

function round(x) {                                        // a half goes to the even number, as in Python
  const up = Math.floor(x + .5)
  return up - x === .5 && up % 2 ? up - 1 : up
}

function cutToInk({shape: [height, width], data}) {
  let top = height, bottom = -1, left = width, right = -1
  for (let r = 0; r < height; r++)
    for (let c = 0; c < width; c++)
      if (data[r*width + c] > 0) {
        top = Math.min(top, r), bottom = Math.max(bottom, r)
        left = Math.min(left, c), right = Math.max(right, c)
      }
  if (bottom < 0) return null                              // a blank sheet
  const rows = []
  for (let r = top; r <= bottom; r++) rows.push(...data.subarray(r*width + left, r*width + right + 1))
  return {shape: [bottom - top + 1, right - left + 1], data: Float64Array.from(rows)}
}

function lanczos(x) {                                      // 1 in the middle, 0 at every other whole number
  if (x === 0) return 1
  return Math.abs(x) < 3 ? 3*Math.sin(Math.PI*x)*Math.sin(Math.PI*x/3)/(Math.PI*x)**2 : 0
}

function resizeWeights(nIn, nOut) {                        // (nOut, nIn): what each new pixel takes from each old one
  const step = nIn/nOut, wide = Math.max(step, 1), data = new Float64Array(nOut*nIn)
  for (let i = 0; i < nOut; i++) {
    const row = data.subarray(i*nIn, (i + 1)*nIn), middle = (i + .5)*step
    let sum = 0
    for (let j = 0; j < nIn; j++) sum += row[j] = lanczos((j + .5 - middle)/wide)
    for (let j = 0; j < nIn; j++) row[j] /= sum
  }
  return {shape: [nOut, nIn], data}
}

function fitInBox(image, size = 20) {
  const longest = Math.max(...image.shape)
  const [rows, cols] = image.shape.map(side => resizeWeights(side, Math.max(1, round(size*side/longest))))
  const {shape, data} = matmul(matmul(rows, image), transposed(cols))
  return {shape, data: data.map(ink => Math.min(Math.max(ink, 0), 1))}
}

function centred({shape: [height, width], data}) {
  let ink = 0, down = 0, across = 0
  data.forEach((value, i) => {
    ink += value, down += value*Math.floor(i/width), across += value*(i % width)
  })
  const start = (sum, side) => {                           // 4 decimals: a half must be one on every computer
    const shift = round(Math.round((14 - sum/ink)*1e4)/1e4)
    return Math.min(Math.max(shift, 0), 28 - side)
  }
  const top = start(down, height), left = start(across, width), frame = new Float32Array(784)
  data.forEach((value, i) => { frame[(top + Math.floor(i/width))*28 + left + i % width] = value })
  return {shape: [1, 784], data: frame}
}

function asMnist(pixels, height, width) {                  // ink from 0 to 1; null for a blank sheet
  const image = cutToInk({shape: [height, width], data: pixels})
  return image && centred(fitInBox(image))
}

// What the nets are made of: chapters 03, 06 and 11.

function linear(x, weights, bias) {                        // x@w + b
  const {shape, data} = matmul(x, weights)
  return {shape, data: data.map((value, i) => value + bias.data[i % shape[1]])}
}

function relu({shape, data}) { return {shape, data: data.map(value => Math.max(value, 0))} }

function softmax(scores) {
  const largest = Math.max(...scores), raised = Array.from(scores, score => Math.exp(score - largest))
  const sum = raised.reduce((a, b) => a + b)
  return raised.map(value => value/sum)
}

function conv2d(x, weights, stride = 1, padding = 0) {     // (c, h, w) -> (k, places down, places across)
  const [c, h, w] = x.shape, [k, , rows, cols] = weights.shape
  const high = Math.floor((h + 2*padding - rows)/stride) + 1, across = Math.floor((w + 2*padding - cols)/stride) + 1
  const windows = {shape: [c*rows*cols, high*across], data: new Float64Array(c*rows*cols*high*across)}
  let at = 0                                               // a row of the table for each pixel of a window
  for (let channel = 0; channel < c; channel++)
    for (let r = 0; r < rows; r++)
      for (let s = 0; s < cols; s++)
        for (let i = 0; i < high; i++)
          for (let j = 0; j < across; j++, at++) {
            const y = i*stride + r - padding, z = j*stride + s - padding
            if (y >= 0 && y < h && z >= 0 && z < w) windows.data[at] = x.data[(channel*h + y)*w + z]
          }
  const filters = {shape: [k, c*rows*cols], data: weights.data}
  return {shape: [k, high, across], data: matmul(filters, windows).data}     // all windows times all filters
}

function maxPool({shape: [k, h, w], data}) {               // the largest of each two by two
  const shape = [k, Math.floor(h/2), Math.floor(w/2)], out = new Float64Array(shape[0]*shape[1]*shape[2])
  for (let i = 0; i < out.length; i++) {
    const col = i % shape[2], row = Math.floor(i/shape[2]) % shape[1], channel = Math.floor(i/shape[2]/shape[1])
    const corner = (channel*h + 2*row)*w + 2*col
    out[i] = Math.max(data[corner], data[corner + 1], data[corner + w], data[corner + w + 1])
  }
  return {shape, data: out}
}

function batchNorm({shape, data}, norm) {                  // with the means and variances that training has left
  const places = shape[1]*shape[2]
  return {shape, data: data.map((value, i) => {
    const k = Math.floor(i/places), std = Math.sqrt(norm.running_var.data[k] + 1e-5)
    return (value - norm.running_mean.data[k])/std*norm.weight.data[k] + norm.bias.data[k]
  })}
}

// The nets. Each takes an image of the shape [1, 784] and gives its ten scores, and what there is to see inside.

function linearNet(x, net) {
  return {scores: linear(x, transposed(net.weight), net.bias).data}
}

function twoLayerNet(x, net) {
  const hidden = relu(linear(x, net.w1, net.b1))
  return {scores: linear(hidden, net.w2, net.b2).data, hidden: hidden.data}
}

function smallConvNet(x, net) {
  const part = name => {                                   // 'layers.1' has a weight, a bias, …
    const found = Object.entries(net).filter(([key]) => key.startsWith(name + '.'))
    return Object.fromEntries(found.map(([key, table]) => [key.slice(name.length + 1), table]))
  }
  const image = {shape: [1, 28, 28], data: x.data}
  const first = relu(batchNorm(conv2d(image, net['layers.0.weight'], 2, 2), part('layers.1')))         // (16, 14, 14)
  const second = relu(batchNorm(maxPool(conv2d(first, net['layers.3.weight'])), part('layers.5')))     // (32, 6, 6)
  const third = relu(batchNorm(maxPool(conv2d(second, net['layers.7.weight'])), part('layers.9')))     // (64, 2, 2)
  const flat = {shape: [1, third.data.length], data: third.data}
  return {scores: linear(flat, transposed(net['layers.12.weight']), net['layers.12.bias']).data, maps: first}
}
