'use strict';
// Tables of the chosen patch's numbers: in the layer that is shown, and in all layers.

/** The numbers of the chosen patch in a model: a key, a label, a text, and the exact value. */
function describe(at) {
  const { layer, head, patch, view } = at;
  const { values, rest, even } = attentionOf(layer, head, patch);
  const strongest = values.reduce((best, weight, i) => (weight > values[best] ? i : best), patch);
  const place = `row ${Math.floor(strongest / layer.grid[1])}, column ${strongest % layer.grid[1]}`;
  const distance = meanDistance(layer, patch, values);
  const inPercent = (share) => `${shortly(100 * share)} %`;
  const rows = [
    { key: 'distance', label: 'looks on average', text: `${shortly(distance)} patches away`, value: distance },
    { key: 'strongest', label: 'most at', text: place, value: values[strongest] },
    { key: 'peak', label: 'with a weight of', text: `${shortly(values[strongest] / even)} × even`, value: values[strongest] / even },
    { key: 'self', label: 'at itself', text: inPercent(values[patch]), value: values[patch] },
    { key: 'rest', label: layer.windows > 1 ? 'on padding' : 'on other tokens', text: inPercent(rest), value: rest },
  ];
  const gaussian = gaussianOf(layer, head, patch);
  if (gaussian) {
    const [down, , across] = gaussian.covariance.map(Math.sqrt);
    rows.push(
      { key: 'alpha', label: 'strength α', text: `${shortly(gaussian.alpha)} logits`, value: gaussian.alpha },
      { key: 'sigmaRows', label: 'σ of rows', text: `${shortly(down)} patches`, value: down },
      { key: 'sigmaColumns', label: 'σ of columns', text: `${shortly(across)} patches`, value: across },
    );
    if (layer.correlation) {
      rows.push({ key: 'correlation', label: 'correlation', text: shortly(gaussian.correlation), value: gaussian.correlation });
    }
  }
  if (layer.similarity) {
    const cosine = layer.similarity[patch];
    const tokens = view.classTokens > 1 ? ` (mean of ${view.classTokens})` : '';
    rows.push({ key: 'similarity', label: `cosine to [CLS]${tokens}`, text: shortly(cosine), value: cosine });
  }
  if (at.classes) {
    const y = Math.min(Math.floor((at.row + 0.5) * layer.pixels[0]), view.height - 1);
    const x = Math.min(Math.floor((at.column + 0.5) * layer.pixels[1]), view.width - 1);
    const number = at.classes[y * view.width + x];
    rows.push({ key: 'class', label: 'class at its centre', text: at.model.classes[number], value: number });
  }
  return rows;
}

function makeNumbers() {
  const table = element('table', { id: 'numbers' });
  const layers = element('table', { id: 'layers' });
  const details = element('details', {}, element('summary', {}, 'This patch in all layers'),
    element('div', { class: 'scroll' }, layers));
  details.addEventListener('toggle', () => fillLayers());
  const attention = panels.find(({ kind }) => kind.key === 'attention');
  attention.body.append(element('div', { class: 'numbers' }, element('div', { class: 'scroll' }, table), details));
  return { table, layers, details };
}

const headRow = (first, names) => element('thead', {}, element('tr', {},
  ...[first, ...names].map((name) => element('th', { scope: 'col' }, name))));

function fillNumbers() {
  const columns = shown.map(describe);
  const labels = new Map(columns.flat().map(({ key, label }) => [key, label]));
  const rows = [...labels].map(([key, label]) => element('tr', {},
    element('th', { scope: 'row' }, label),
    ...columns.map((column, model) => {
      const cell = column.find((row) => row.key === key);
      if (!cell) return element('td', {}, '–');
      return element('td', { 'data-key': key, 'data-model': model, 'data-value': cell.value }, cell.text);
    })));
  numbers.table.replaceChildren(
    headRow('the chosen patch', DATA.models.map(({ name }) => name)), element('tbody', {}, ...rows),
  );
  fillLayers();
}

/** Gaussian and similarity of the chosen patch in every layer, if the table is open. */
async function fillLayers() {
  if (!numbers.details.open) return;
  const mine = started;
  const rows = [];
  for (const [index, view] of views().entries()) {
    for (const [number, raw] of view.layers.entries()) {
      const layer = { ...raw, ...(await readNumbers(raw)) };
      const [row, column] = patchOf(view, layer);
      const patch = row * layer.grid[1] + column;
      const gaussian = gaussianOf(layer, state.head, patch);
      const cells = [
        gaussian ? shortly(gaussian.alpha) : '–',
        gaussian ? `${shortly(Math.sqrt(gaussian.covariance[0]))} × ${shortly(Math.sqrt(gaussian.covariance[2]))}` : '–',
        layer.similarity ? shortly(layer.similarity[patch]) : '–',
      ];
      const isHere = number === layerNumber(view);
      rows.push(element('tr', isHere ? { class: 'here', 'aria-current': 'true' } : {},
        element('th', { scope: 'row' }, `${several ? `${DATA.models[index].name} ` : ''}${number}`),
        ...cells.map((text) => element('td', {}, text))));
    }
  }
  if (mine !== started) return;
  numbers.layers.replaceChildren(
    headRow('layer', ['α (logits)', 'σ rows × columns (patches)', 'cosine to [CLS]']),
    element('tbody', {}, ...rows),
  );
}
