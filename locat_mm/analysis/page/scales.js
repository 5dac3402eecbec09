'use strict';
// Colours of values: maps of matplotlib, and scales with ends, ticks and units.

const MAPS = {
  inferno: ['#000004', '#160b39', '#420a68', '#6a176e', '#932667', '#bc3754', '#dd513a', '#f37819',
    '#fca50a', '#f6d746', '#fcffa4'],
  viridis: ['#440154', '#472d7b', '#3b528b', '#2c728e', '#21918c', '#28ae80', '#5ec962', '#addc30',
    '#fde725'],
  cividis: ['#00224e', '#1a386f', '#434e6c', '#61656f', '#7d7c78', '#9b9476', '#bcae6c', '#dec958',
    '#fee838'],
  coolwarm: ['#3b4cc0', '#5977e3', '#7b9ff9', '#9ebeff', '#c0d4f5', '#dddcdc', '#f2cbb7', '#f7ac8e',
    '#ee8468', '#d65244', '#b40426'],
};

/** 256 colours between the stops of a map, as a Uint8Array of RGB. */
function makeColours(stops) {
  const rgb = stops.map((text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)));
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i += 1) {
    const position = (i / 255) * (rgb.length - 1);
    const low = Math.min(Math.floor(position), rgb.length - 2);
    for (let c = 0; c < 3; c += 1) {
      table[3 * i + c] = rgb[low][c] + (position - low) * (rgb[low + 1][c] - rgb[low][c]);
    }
  }
  return table;
}

const COLOURS = Object.fromEntries(
  Object.entries(MAPS).map(([name, stops]) => [name, makeColours(stops)]),
);

/**
 * A scale: the name of its map, its ends, the unit. `log` scales begin above 0. Values beyond an
 * end get the colour of the end, which `open` states at the upper one.
 */
function makeScale(map, low, high, unit, { log = false, open = false } = {}) {
  const place = (value) => (log
    ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
    : (value - low) / (high - low));
  return {
    unit,
    table: COLOURS[map],
    /** The number of a value's colour, 0 to 255. */
    index: (value) => Math.round(255 * Math.min(Math.max(place(value), 0), 1)),
    ticks: ticksOf(low, high, log).map((value) => ({
      share: place(value),
      text: (value === low && log ? '≤ ' : '') + (value === high && open ? '≥ ' : '') + shortly(value),
    })),
  };
}

function ticksOf(low, high, log) {
  if (!log) return [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
  const ticks = [low];
  for (let tick = low * 10; tick < high * 0.5; tick *= 10) ticks.push(tick);
  return [...ticks, high];
}

/** A number with three digits at most, without an exponent where it can be read without one. */
function shortly(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 0.0005) return value.toExponential(1);
  return String(Number(value.toPrecision(size >= 100 ? Math.ceil(Math.log10(size + 1)) : 3)))
    .replace('-', '−');
}
