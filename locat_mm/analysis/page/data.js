'use strict';
// The content of the page: JSON, and arrays that are decoded when they are first needed.

const FORMAT = 1;
const DATA = JSON.parse(document.getElementById('data').textContent);
if (DATA.format !== FORMAT) {
  throw new Error(`the content has format ${DATA.format} and the scripts read format ${FORMAT}`);
}

const decoded = new Map();

/** The bytes of an array: base64 of deflated data, in an element of its own. */
function bytesOf(number) {
  if (!decoded.has(number)) decoded.set(number, inflate(number));
  return decoded.get(number);
}

async function inflate(number) {
  const text = atob(document.getElementById(`blob${number}`).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

/** An array, or null where the content has none. */
async function arrayOf(number, Type) {
  return number === undefined ? null : new Type(await bytesOf(number));
}

const loaded = new Map();

/** The arrays of a layer, with the functions that read them. `view` is one image in one model. */
function loadLayer(view, number) {
  const layer = view.layers[number];
  if (!loaded.has(layer)) loaded.set(layer, readLayer(layer));
  return loaded.get(layer);
}

async function readLayer(layer) {
  const [codes, scale, rest, patches, numbers, features, featureScale, colours] = await Promise.all([
    arrayOf(layer.attention, Uint8Array),
    arrayOf(layer.scale, Float32Array),
    arrayOf(layer.rest, Float32Array),
    arrayOf(layer.patches, Int32Array),
    readNumbers(layer),
    arrayOf(layer.features, Int8Array),
    arrayOf(layer.featureScale, Float32Array),
    arrayOf(layer.colours, Uint8Array),
  ]);
  return { ...layer, ...numbers, codes, scale, rest, features, featureScale, colours,
    patches, places: placesOf(layer, patches) };
}

/** Gaussians and similarities of a layer: small, so that a table of all layers is quick. */
async function readNumbers(layer) {
  return {
    size: layer.grid[0] * layer.grid[1],
    gaussians: await arrayOf(layer.gaussian, Float32Array),
    similarity: await arrayOf(layer.similarity, Float32Array),
  };
}

/** Where the token of each patch is: window · tokens + token. */
function placesOf(layer, patches) {
  const places = new Int32Array(layer.grid[0] * layer.grid[1]).map((_, patch) => patch);
  if (patches) patches.forEach((patch, place) => { if (patch >= 0) places[patch] = place; });
  return places;
}

/** The number of a layer's head, counted from 1; 0, the mean, where the layer has no such head. */
const headIn = (layer, head) => (head <= layer.heads ? head : 0);

/**
 * Attention of a patch: a weight for each patch, NaN outside of its window. `rest` is what other
 * tokens get (class tokens, registers, padding), `even` the weight if all were equal.
 */
function attentionOf(layer, head, patch) {
  const { tokens, windows, codes, scale, rest } = layer;
  const place = layer.places[patch];
  const row = headIn(layer, head) * windows * tokens + place;
  const first = Math.floor(place / tokens) * tokens;
  const values = new Float32Array(layer.size).fill(NaN);
  for (let i = 0; i < tokens; i += 1) {
    const seen = layer.patches ? layer.patches[first + i] : i;
    if (seen >= 0) values[seen] = scale[row] * codes[row * tokens + i] ** 2;
  }
  return { values, rest: rest[row], even: layer.even };
}

/** The Gaussian of a patch: α in logits, and Σ in squared patches as [rows, mixed, columns]. */
function gaussianOf(layer, head, patch) {
  if (!layer.gaussians) return null;
  const count = layer.correlation ? 4 : 3;
  const at = (headIn(layer, head) * layer.size + patch) * count;
  const [rows, columns, alpha, correlation = 0] = layer.gaussians.subarray(at, at + count);
  const covariance = [rows, correlation * Math.sqrt(rows * columns), columns];
  return { alpha, covariance, correlation, ...axesOf(covariance) };
}

/** σ along the long and the short axis, and the long axis' angle from the columns' direction. */
function axesOf([rows, mixed, columns]) {
  const centre = (rows + columns) / 2;
  const radius = Math.hypot((columns - rows) / 2, mixed);
  const angle = radius < 1e-12 ? 0 : Math.atan2(2 * mixed, columns - rows) / 2;
  return { long: Math.sqrt(centre + radius), short: Math.sqrt(Math.max(centre - radius, 0)), angle };
}

/** What GAug adds to the logits of a patch: α · exp(-½ dᵀ Σ⁻¹ d), NaN outside of its window. */
function biasOf(layer, head, patch) {
  const { alpha, covariance: [rows, mixed, columns] } = gaussianOf(layer, head, patch);
  const determinant = rows * columns - mixed * mixed;
  const width = layer.grid[1];
  const [row, column] = [Math.floor(patch / width), patch % width];
  const windowOf = (one) => Math.floor(layer.places[one] / layer.tokens);
  const own = windowOf(patch);
  const values = new Float32Array(layer.size).fill(NaN);
  for (let other = 0; other < layer.size; other += 1) {
    if (windowOf(other) !== own) continue;
    const down = Math.floor(other / width) - row;
    const right = (other % width) - column;
    const squared = (columns * down * down - 2 * mixed * down * right + rows * right * right);
    values[other] = alpha * Math.exp((-0.5 * squared) / determinant);
  }
  return values;
}

/** Cosine between a patch's features and those of every patch. */
function cosinesOf(layer, patch) {
  const { features, featureScale, rank, size } = layer;
  const query = featureScale.map((scale, i) => scale * scale * features[patch * rank + i]);
  const cosines = new Float32Array(size);
  for (let other = 0; other < size; other += 1) {
    let sum = 0;
    const from = other * rank;
    for (let i = 0; i < rank; i += 1) sum += query[i] * features[from + i];
    cosines[other] = sum;
  }
  return cosines;
}

/** Mean distance of a patch to what it looks at, in patches of its layer. */
function meanDistance(layer, patch, values) {
  const width = layer.grid[1];
  let sum = 0;
  let total = 0;
  values.forEach((weight, other) => {
    if (Number.isNaN(weight)) return;
    const down = Math.floor(other / width) - Math.floor(patch / width);
    sum += weight * Math.hypot(down, (other % width) - (patch % width));
    total += weight;
  });
  return total ? sum / total : 0;
}
