'use strict';
// Drawing on the canvas of one picture, in the pixels of what the model has seen.

const pictures = new Map();

/** A view's picture, in colour and in faint grey, as canvases. */
function loadPicture(view) {
  if (!pictures.has(view)) pictures.set(view, decodePicture(view));
  return pictures.get(view);
}

async function decodePicture(view) {
  const image = new Image();
  image.src = view.picture;
  await image.decode();
  const colour = makeCanvas(view.width, view.height);
  colour.getContext('2d').drawImage(image, 0, 0);
  const pixels = colour.getContext('2d').getImageData(0, 0, view.width, view.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const mean = (pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2]) / 3;
    pixels.data.fill(mean, i, i + 3);
  }
  const grey = makeCanvas(view.width, view.height);
  grey.getContext('2d').putImageData(pixels, 0, 0);
  return { colour, grey };
}

function makeCanvas(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** Fit a canvas to its place in the page; return its context, scaled to pixels of the picture. */
function prepare(canvas, view) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round((width * view.height) / view.width));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext('2d');
  context.setTransform(width / view.width, 0, 0, width / view.width, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  return context;
}

/** One colour for each patch, at its place. `colours` holds RGBA of all patches. */
function drawPatches(context, layer, colours, opacity) {
  const [rows, columns] = layer.grid;
  const small = makeCanvas(columns, rows);
  small.getContext('2d').putImageData(new ImageData(colours, columns, rows), 0, 0);
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, columns * layer.pixels[1], rows * layer.pixels[0]);
  context.restore();
}

/** Values of patches in the colours of a scale; NaN is left out. */
function drawValues(context, layer, values, scale, opacity) {
  const colours = new Uint8ClampedArray(4 * values.length);
  for (let patch = 0; patch < values.length; patch += 1) {
    if (Number.isNaN(values[patch])) continue;
    const at = 3 * scale.index(values[patch]);
    for (let c = 0; c < 3; c += 1) colours[4 * patch + c] = scale.table[at + c];
    colours[4 * patch + 3] = 255;
  }
  drawPatches(context, layer, colours, opacity);
}

/** RGB of patches, with full opacity. */
function withOpacity(rgb) {
  const colours = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  rgb.forEach((value, i) => { colours[4 * Math.floor(i / 3) + (i % 3)] = value; });
  return colours;
}

/** A line on dark and light ground: dark below, its colour above. */
function strokeTwice(context, colour, width, dash = []) {
  const pixel = 1 / context.getTransform().a * (window.devicePixelRatio || 1);
  context.setLineDash(dash.map((length) => length * pixel));
  context.strokeStyle = 'rgba(0, 0, 0, 0.75)';
  context.lineWidth = (width + 2) * pixel;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = width * pixel;
  context.stroke();
  context.setLineDash([]);
}

function drawFrame(context, layer, patch) {
  const [height, width] = layer.pixels;
  const columns = layer.grid[1];
  context.beginPath();
  context.rect((patch % columns) * width, Math.floor(patch / columns) * height, width, height);
  strokeTwice(context, '#00e5ff', 2);
}

/** Ellipses of a Gaussian at 1 σ (solid) and 2 σ (dashed), from its axes. */
function drawEllipses(context, layer, patch, { long, short, angle }) {
  const [height, width] = layer.pixels;
  const columns = layer.grid[1];
  for (const sigmas of [1, 2]) {
    context.save();
    context.translate((patch % columns + 0.5) * width, (Math.floor(patch / columns) + 0.5) * height);
    context.scale(width, height);
    context.beginPath();
    context.ellipse(0, 0, sigmas * long, sigmas * short, angle, 0, 2 * Math.PI);
    context.restore();
    strokeTwice(context, '#ff5a52', 2, sigmas === 1 ? [] : [6, 4]);
  }
}

/** The border of the window that a patch looks in; a shifted window may have several parts. */
function drawWindow(context, layer, patch) {
  if (layer.windows === 1) return;
  const [rows, columns] = layer.grid;
  const [height, width] = layer.pixels;
  const windowOf = (row, column) => (row < 0 || column < 0 || row >= rows || column >= columns
    ? -1 : Math.floor(layer.places[row * columns + column] / layer.tokens));
  const own = Math.floor(layer.places[patch] / layer.tokens);
  context.beginPath();
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      const inside = windowOf(row, column) === own;
      if (inside !== (windowOf(row - 1, column) === own)) {
        context.moveTo(column * width, row * height);
        context.lineTo((column + 1) * width, row * height);
      }
      if (inside !== (windowOf(row, column - 1) === own)) {
        context.moveTo(column * width, row * height);
        context.lineTo(column * width, (row + 1) * height);
      }
    }
  }
  strokeTwice(context, '#ffffff', 1.5);
}

const classMaps = new Map();

/** Classes of all pixels `Uint16Array`, in the colours of a palette. */
function drawClasses(context, view, classes, palette, opacity) {
  if (!classMaps.has(view)) classMaps.set(view, paintClasses(view, classes, palette));
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(classMaps.get(view), 0, 0);
  context.restore();
}

function paintClasses(view, classes, palette) {
  const pixels = new ImageData(view.width, view.height);
  classes.forEach((number, i) => pixels.data.set([...palette[number], 255], 4 * i));
  const map = makeCanvas(view.width, view.height);
  map.getContext('2d').putImageData(pixels, 0, 0);
  return map;
}
