'use strict';
// What is shown, and how it is chosen: mouse, keys, sliders and the address.

const byId = (id) => document.getElementById(id);
const state = { image: 0, layer: 0, head: 0, row: 0, column: 0 };
let hovered = null; // a patch [row, column] below the pointer, shown before it is chosen
let shown = []; // what is shown of each model
const panels = makePanels(byId('panels'));
const numbers = makeNumbers();
const several = DATA.models.length > 1;

const views = () => DATA.images[state.image].views;
const clamp = (value, most) => Math.min(Math.max(Math.round(value) || 0, 0), most);
/** Patches along rows and columns that lie in the picture, without its padding. */
const extent = ({ width, height, patch }) => [Math.ceil(height / patch[0]), Math.ceil(width / patch[1])];
const countLayers = () => Math.max(...views().map((view) => view.layers.length));
const countHeads = () => Math.max(...views().flatMap((view) => view.layers.map(({ heads }) => heads)));

/** A model with fewer layers is shown at the same share of its depth. */
function layerNumber(view) {
  const most = countLayers() - 1;
  return most ? Math.round((state.layer / most) * (view.layers.length - 1)) : 0;
}

/** What is shown of a model: its layer with arrays, and the patch below the chosen point. */
async function locate(view, index) {
  const number = layerNumber(view);
  const [layer, picture, refinement, classes] = await Promise.all([
    loadLayer(view, number),
    loadPicture(view),
    view.refinement && arrayOf(view.refinement.weights, Float32Array),
    arrayOf(view.segmentation, Uint16Array),
  ]);
  const [row, column] = patchOf(view, layer);
  return {
    view, number, layer, picture, refinement, classes, row, column,
    model: DATA.models[index],
    head: state.head,
    patch: row * layer.grid[1] + column,
    opacity: byId('under').checked ? 0.78 : 1,
  };
}

/** The patch (row, column) of a layer in which the centre of the chosen patch lies. */
function patchOf(view, layer) {
  const first = views()[0];
  const [row, column] = hovered || [state.row, state.column];
  const sides = [[row, first.height, view.height], [column, first.width, view.width]];
  return sides.map(([at, from, to], axis) => {
    const centre = ((at + 0.5) * first.patch[axis] * to) / from;
    return clamp(Math.floor(centre / layer.pixels[axis]), layer.grid[axis] - 1);
  });
}

let started = 0;
async function show() {
  started += 1;
  const mine = started;
  const found = await Promise.all(views().map(locate));
  if (mine !== started) return; // something newer is to be shown
  const began = performance.now();
  shown = found;
  panels.forEach((panel) => drawPanel(panel, DATA.images[state.image], shown));
  fillNumbers();
  describeControls();
  document.body.dataset.drawn = (performance.now() - began).toFixed(1);
  document.body.dataset.shown = JSON.stringify({ ...state, hovered });
}

let isDue = false;
function showSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; show(); });
}

/** Change what is chosen, within what there is; write it into the address. */
function choose(change) {
  Object.assign(state, change);
  hovered = null;
  state.image = clamp(state.image, DATA.images.length - 1);
  state.layer = clamp(state.layer, countLayers() - 1);
  state.head = clamp(state.head, countHeads());
  const [rows, columns] = extent(views()[0]);
  state.row = clamp(state.row, rows - 1);
  state.column = clamp(state.column, columns - 1);
  if (window.location.protocol !== 'about:') window.history.replaceState(null, '', address());
  show().then(speak);
}

function address() {
  const image = DATA.images.length > 1 ? `image=${state.image}&` : '';
  const head = state.head ? `&head=${state.head - 1}` : '';
  return `#${image}layer=${state.layer}&patch=${state.row},${state.column}${head}`;
}

/** Read the address; what it does not say stays as it is given. */
function readAddress(otherwise) {
  const given = new URLSearchParams(window.location.hash.slice(1));
  const change = { ...otherwise };
  for (const key of ['image', 'layer']) if (given.has(key)) change[key] = Number(given.get(key));
  if (given.has('head')) change.head = Number(given.get('head')) + 1;
  if (given.has('patch')) [change.row, change.column] = given.get('patch').split(',').map(Number);
  return change;
}

function describeControls() {
  const own = views().map(layerNumber);
  byId('layer').max = countLayers() - 1;
  byId('layer').value = state.layer;
  byId('layerText').textContent = `${own.every((n) => n === own[0]) ? own[0] : own.join(' and ')} `
    + `of 0–${countLayers() - 1}`;
  byId('head').max = countHeads();
  byId('head').disabled = countHeads() === 0;
  byId('head').value = state.head;
  byId('headText').textContent = state.head ? `${state.head - 1} of 0–${countHeads() - 1}`
    : `mean${countHeads() ? '' : ' (only)'}`;
  byId('image').value = state.image;
  const [row, column] = hovered || [state.row, state.column];
  byId('where').textContent = `patch: row ${row}, column ${column}`;
}

/** The numbers of a patch, in words, for a screen reader. */
function speak() {
  const of = shown.map((at, i) => `${DATA.models[i].name}: ${describe(at)
    .map(({ label, text }) => `${label} ${text}`).join(', ')}`);
  byId('spoken').textContent = `Layer ${state.layer}, patch row ${state.row}, column ${state.column}. `
    + of.join('. ');
}

/** The patch of the first model's grid below the pointer. */
function patchBelow(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const [view] = views();
  const y = ((event.clientY - box.top) / box.height) * view.height;
  const x = ((event.clientX - box.left) / box.width) * view.width;
  const [rows, columns] = extent(view);
  return [clamp(Math.floor(y / view.patch[0]), rows - 1), clamp(Math.floor(x / view.patch[1]), columns - 1)];
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target !== document.body && !event.target.matches('canvas.map')) return;
  const step = STEPS[event.key];
  if (step) {
    // One patch of the layer: in Swin several of the patch embedding.
    const { layer, view } = shown[0];
    const size = [0, 1].map((axis) => Math.max(1, layer.pixels[axis] / view.patch[axis]));
    choose({ row: state.row + step[0] * size[0], column: state.column + step[1] * size[1] });
    event.preventDefault();
  } else if (event.key === 'l' || event.key === 'L') {
    choose({ layer: state.layer + (event.shiftKey ? -1 : 1) });
  } else if (event.key === 'h' || event.key === 'H') {
    choose({ head: state.head + (event.shiftKey ? -1 : 1) });
  }
}

function listen() {
  byId('layer').addEventListener('input', () => choose({ layer: Number(byId('layer').value) }));
  byId('head').addEventListener('input', () => choose({ head: Number(byId('head').value) }));
  byId('image').addEventListener('change', () => choose({ image: Number(byId('image').value) }));
  byId('under').addEventListener('change', show);
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  byId('copy').addEventListener('click', copyLink);
  byId('theme').addEventListener('click', switchTheme);
  byId('skip').addEventListener('click', (event) => {
    event.preventDefault();
    byId('layer').focus();
  });
  document.addEventListener('keydown', press);
  window.addEventListener('hashchange', () => choose(readAddress({})));
  new ResizeObserver(showSoon).observe(byId('panels'));
  for (const { canvas } of panels.flatMap(({ figures }) => figures)) {
    canvas.addEventListener('click', (event) => {
      const [row, column] = patchBelow(canvas, event);
      choose({ row, column });
    });
    canvas.addEventListener('pointermove', (event) => {
      if (event.pointerType !== 'mouse') return;
      const patch = patchBelow(canvas, event);
      if (String(patch) === String(hovered || [state.row, state.column])) return;
      hovered = patch;
      showSoon();
    });
    canvas.addEventListener('pointerleave', () => {
      if (!hovered) return;
      hovered = null;
      showSoon();
    });
  }
}

async function copyLink() {
  await navigator.clipboard.writeText(window.location.href);
  byId('spoken').textContent = 'The link is copied.';
  byId('copy').textContent = 'Copied';
  setTimeout(() => { byId('copy').textContent = 'Copy link'; }, 1500);
}

const isDark = () => {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === 'dark' : window.matchMedia('(prefers-color-scheme: dark)').matches;
};

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
  nameTheme();
}

function nameTheme() {
  byId('theme').textContent = isDark() ? 'Light' : 'Dark';
  byId('theme').setAttribute('aria-label', isDark() ? 'Use light colours' : 'Use dark colours');
}

/** The largest errors of what is stored as bytes. */
function stateErrors() {
  const layers = DATA.images.flatMap((image) => image.views.flatMap((view) => view.layers));
  const largest = (key) => shortly(Math.max(...layers.map((layer) => layer[key] || 0)));
  byId('errors').textContent = 'Stored as bytes: weights of attention, which sum to 1, are exact to '
    + `within ${largest('attentionError')}; cosines between patches to within ${largest('cosineError')}. `
    + 'All other numbers are 32-bit floats. σ is the root of the paper’s Σ, without the small eps that '
    + 'the code adds to it; for the mean, Σ and α are averaged over the heads.';
}

function begin() {
  const names = DATA.models.map(({ name }) => name).join(' and ');
  byId('models').textContent = `${names}`;
  document.title = `A look inside ${names}`;
  const hasGaussian = DATA.images.some(({ views: all }) => all.some(({ layers }) => (
    layers.some(({ gaussian }) => gaussian !== undefined))));
  byId('withGaussian').hidden = !hasGaussian;
  byId('image').append(...DATA.images.map(({ name }, i) => element('option', { value: i }, name)));
  byId('imageLabel').hidden = DATA.images.length === 1;
  byId('copy').hidden = !navigator.clipboard;
  stateErrors();
  nameTheme();
  listen();
  const [rows, columns] = extent(views()[0]);
  choose(readAddress({
    layer: Math.floor(countLayers() / 2),
    row: Math.floor(rows / 2),
    column: Math.floor(columns / 2),
  }));
}

begin();
