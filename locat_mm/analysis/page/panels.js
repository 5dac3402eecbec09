'use strict';
// What the page shows: one panel for each kind of map, with a picture for each model.

/**
 * A kind of map. `has(layer, view)` tells from the content whether there is such a map. `detail`
 * tells what it depends on: layer and head ('head'), nothing ('none'), or the layer. `scale`
 * makes the colour scale of an image. `draw` draws one picture: `at` holds what is shown of a
 * model (view, layer with arrays, head, patch, picture, opacity, model).
 */
const KINDS = [
  {
    key: 'attention',
    detail: 'head',
    title: 'Where the chosen patch looks',
    note: 'Attention of the patch in the blue frame, as a multiple of even attention to everything: '
      + '10 is ten times as much. Red: its Gaussian at 1 σ (solid) and 2 σ (dashed).',
    has: () => true,
    scale: (image) => makeScale('inferno', 0.1, image.tops.attention, '× even attention',
      { log: true, open: true }),
    draw(context, at, scale) {
      const { values, even } = attentionOf(at.layer, at.head, at.patch);
      drawValues(context, at.layer, values.map((weight) => weight / even), scale, at.opacity);
      drawWindow(context, at.layer, at.patch);
      const gaussian = gaussianOf(at.layer, at.head, at.patch);
      if (gaussian) drawEllipses(context, at.layer, at.patch, gaussian);
    },
  },
  {
    key: 'bias',
    detail: 'head',
    title: 'What GAug adds for this patch',
    note: 'The Gaussian bias: added to the logits of the attention before softmax. Height α, width σ.',
    has: (layer) => layer.gaussian !== undefined,
    absent: 'no Gaussian here: every place counts alike',
    scale: (image) => makeScale('viridis', 0, image.tops.alpha, 'logits', { open: true }),
    draw(context, at, scale) {
      drawValues(context, at.layer, biasOf(at.layer, at.head, at.patch), scale, at.opacity);
      drawWindow(context, at.layer, at.patch);
      drawEllipses(context, at.layer, at.patch, gaussianOf(at.layer, at.head, at.patch));
    },
  },
  {
    key: 'picture',
    detail: 'none',
    title: 'The picture',
    note: 'What the model gets, as the config’s test pipeline prepares it.',
    has: (layer, view) => view === DATA.images.find(({ views }) => views.includes(view)).views[0],
    draw: (context, at) => context.drawImage(at.picture.colour, 0, 0),
  },
  {
    key: 'segmentation',
    detail: 'none',
    title: 'What the decoder says',
    note: 'The predicted class of every pixel. It does not depend on layer and head.',
    has: (layer, view) => view.segmentation !== undefined,
    draw: (context, at) => drawClasses(context, at.view, at.classes, at.model.palette, at.opacity),
  },
  {
    key: 'cosines',
    title: 'Patches like the chosen one',
    note: 'Cosine between the features of the chosen patch and of every patch, behind this layer.',
    has: (layer) => layer.features !== undefined,
    scale: () => makeScale('coolwarm', -1, 1, 'cosine'),
    draw: (context, at, scale) => drawValues(
      context, at.layer, cosinesOf(at.layer, at.patch), scale, at.opacity,
    ),
  },
  {
    key: 'colours',
    title: 'Features as colours',
    note: 'Red, green and blue are the first three principal components of the features: patches '
      + 'of one colour are alike for the model.',
    has: (layer) => layer.colours !== undefined,
    draw: (context, at) => drawPatches(
      context, at.layer, withOpacity(at.layer.colours), at.opacity,
    ),
  },
  {
    key: 'similarity',
    title: 'Similarity to the class token',
    note: 'Cosine between every patch and [CLS] behind this layer. Where all are near 1, the patches '
      + 'have lost what is local.',
    has: (layer) => layer.similarity !== undefined,
    scale: () => makeScale('coolwarm', -1, 1, 'cosine'),
    draw: (context, at, scale) => drawValues(
      context, at.layer, at.layer.similarity, scale, at.opacity,
    ),
  },
  gaussianMap('sigma', 'Width σ of every patch', 'How far the preference of each patch reaches: '
    + '√(long · short axis), in patches of this layer.', 'viridis', 0, 'patches',
  ({ long, short }) => Math.sqrt(long * short)),
  gaussianMap('alpha', 'Strength α of every patch', 'How much the preference counts: the height of '
    + 'the Gaussian bias.', 'cividis', 0, 'logits', ({ alpha }) => alpha),
  gaussianMap('anisotropy', 'Shape of every Gaussian', 'Long axis by short axis: 1 is a circle.',
    'viridis', 1, '× (long ÷ short axis)', ({ long, short }) => long / Math.max(short, 1e-6)),
  {
    key: 'refinement',
    detail: 'none',
    title: 'What PRR gives the head',
    note: 'Weights of the patches in what the classification head reads, as a multiple of even '
      + 'weights. They do not depend on layer and head.',
    has: (layer, view) => view.refinement !== undefined,
    scale: (image, shown) => makeScale('inferno', 0, Math.max(2, ...shown.filter((at) => at.refinement)
      .map((at) => Math.max(...at.refinement) * at.refinement.length)), '× even weight'),
    draw(context, at, scale) {
      const { grid, pixels } = at.view.refinement;
      const values = at.refinement.map((weight) => weight * at.refinement.length);
      drawValues(context, { grid, pixels }, values, scale, at.opacity);
    },
  },
];

/** A map of a number of every patch's Gaussian. */
function gaussianMap(key, title, note, map, low, unit, read) {
  return {
    key,
    detail: 'head',
    title,
    note,
    has: (layer) => layer.gaussian !== undefined,
    scale: (image) => makeScale(map, low, image.tops[key], unit, { open: true }),
    draw(context, at, scale) {
      drawValues(context, at.layer, valuesOf(key, at, read), scale, at.opacity);
    },
  };
}

const remembered = new Map();

/** A number of all Gaussians of a layer. It is the same for every chosen patch. */
function valuesOf(key, { layer, head }, read) {
  const name = `${key} ${headIn(layer, head)} ${layer.gaussian}`;
  if (!remembered.has(name)) {
    const values = new Float32Array(layer.size);
    for (let i = 0; i < layer.size; i += 1) values[i] = read(gaussianOf(layer, head, i));
    remembered.set(name, values);
  }
  return remembered.get(name);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Make the panels that some image has in some layer of some model. */
function makePanels(root) {
  const views = DATA.images.flatMap((image) => image.views);
  return KINDS
    .filter((kind) => views.some((view) => view.layers.some((layer) => kind.has(layer, view))))
    .map((kind) => makePanel(root, kind));
}

function makePanel(root, kind) {
  // A model that never has such a map gets no place, except where its absence is the point.
  const owners = DATA.models.map((_, index) => index).filter((index) => kind.absent
    || DATA.images.some(({ views }) => views[index].layers.some((layer) => kind.has(layer, views[index]))));
  const figures = owners.map((index) => {
    const model = DATA.models[index];
    const canvas = element('canvas', { class: 'map', tabindex: kind.key === 'attention' ? 0 : -1 });
    canvas.setAttribute('role', 'application');
    canvas.setAttribute('aria-roledescription', 'map of patches');
    const caption = element('figcaption');
    const absent = element('div', { class: 'absent', hidden: '' }, kind.absent || 'not in this layer');
    return { model, index, canvas, caption, absent, figure: element('figure', {}, caption, canvas, absent) };
  });
  const scale = element('div', { class: 'scale' });
  const pictures = element('div', { class: 'pictures' },
    element('div', { class: 'views' }, ...figures.map(({ figure }) => figure)), scale);
  const body = element('div', { class: 'body' }, pictures);
  const size = kind.key === 'attention' ? ' wide' : ['', '', ' pair'][figures.length];
  const note = element('p', { class: 'note' }, kind.note);
  pictures.style.setProperty('--models', figures.length);
  root.append(element('section', { 'class': `panel${size}`, 'data-kind': kind.key, 'aria-label': kind.title },
    element('h2', {}, kind.title), note, body));
  return { kind, figures, scale, body, note, drawnScale: '' };
}

/** Draw a panel; `shown` holds what is shown of each model. */
function drawPanel(panel, image, shown) {
  const { kind, figures } = panel;
  const scale = kind.scale ? kind.scale(image, shown) : null;
  if (scale) drawScale(panel, scale);
  figures.forEach(({ canvas, caption, absent, model, index }) => {
    const at = shown[index];
    const has = kind.has(at.layer, at.view);
    canvas.hidden = !has;
    absent.hidden = has;
    absent.style.aspectRatio = `${at.view.width} / ${at.view.height}`;
    caption.replaceChildren(element('b', {}, kind.key === 'picture' ? DATA.images[state.image].name : model.name));
    if (kind.detail !== 'none') {
      const detail = kind.detail === 'head' ? `, ${headName(at.layer, at.head)}` : '';
      caption.append(element('span', {}, `layer ${at.number}${detail}`));
    }
    canvas.setAttribute('aria-label', `${kind.title}: ${model.name}, layer ${at.number}. Patch row `
      + `${at.row}, column ${at.column}. Arrow keys choose a patch.`);
    if (!has) return;
    const context = prepare(canvas, at.view);
    const ground = kind.key === 'segmentation' ? at.picture.colour : at.picture.grey;
    if (at.opacity < 1) context.drawImage(ground, 0, 0);
    kind.draw(context, at, scale);
    drawFrame(context, at.layer, at.patch);
  });
  if (kind.key === 'colours') panel.note.textContent = kind.note + basisNote(image);
  if (kind.key === 'segmentation') drawLegend(panel, shown);
}

function basisNote(image) {
  if (DATA.models.length === 1) return '';
  return image.sharedColours ? ' Both models have one basis for each layer.'
    : ' The models have different layers or channels, so each has a basis of its own.';
}

function headName(layer, head) {
  const number = headIn(layer, head);
  if (number) return `head ${number - 1}`;
  return layer.heads ? `mean of ${layer.heads} heads` : 'mean of the heads';
}

function drawScale(panel, scale) {
  const key = JSON.stringify([scale.unit, scale.ticks]);
  if (key === panel.drawnScale) return;
  panel.drawnScale = key;
  const bar = makeCanvas(256, 1);
  const pixels = new ImageData(256, 1);
  for (let i = 0; i < 256; i += 1) {
    pixels.data.set([...scale.table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  }
  bar.getContext('2d').putImageData(pixels, 0, 0);
  const ticks = scale.ticks.map(({ share, text }) => (
    element('span', { style: `left: ${100 * share}%` }, text)
  ));
  panel.scale.replaceChildren(bar, element('div', { class: 'ticks' }, ...ticks), scale.unit);
  panel.scale.setAttribute('role', 'img');
  panel.scale.setAttribute('aria-label', `Colour scale from ${scale.ticks[0].text} to `
    + `${scale.ticks.at(-1).text} ${scale.unit}`);
}

function drawLegend(panel, shown) {
  const seen = new Map();
  for (const at of shown.filter(({ classes }) => classes)) {
    for (const number of new Set(at.classes)) seen.set(at.model.classes[number], at.model.palette[number]);
  }
  panel.scale.replaceChildren(element('div', { class: 'legend' }, ...[...seen].map(([name, rgb]) => (
    element('span', {}, element('i', { style: `background: rgb(${rgb})` }), name)
  ))));
}
