// What a terminal shows, as an SVG that needs no font with block characters.

const CELL_WIDTH = 8.4;
const CELL_HEIGHT = 19;
const FONT_SIZE = 14;
const MARGIN = 14;
const BACKGROUND = '#16191f';
const FOREGROUND = '#d8dee9';

/** SGR numbers of ECMA-48 and what they change.
 * @type {Readonly<Record<number, Partial<Look>>>}
 */
const SGR = {
  0: { color: FOREGROUND, isBold: false },
  1: { isBold: true },
  22: { isBold: false },
  31: { color: '#f2777a' },
  32: { color: '#7ec97f' },
  33: { color: '#f0c35e' },
  35: { color: '#c79ae6' },
  36: { color: '#62c4d8' },
  39: { color: FOREGROUND },
  90: { color: '#8b93a3' },
};
const SEQUENCE = '\u001b[';
/** Eighths of a cell, from below. */
const BLOCKS = '▁▂▃▄▅▆▇█';
const SHADE = '░';

/**
 * @typedef {{ readonly color: string, readonly isBold: boolean }} Look
 * @typedef {{ readonly text: string, readonly at: number, readonly look: Look }} Piece
 */

/**
 * @param {readonly string[]} lines with SGR sequences; no others
 * @param {{ readonly columns: number, readonly label: string }} options
 */
export function svgOf(lines, { columns, label }) {
  const width = Math.ceil(columns * CELL_WIDTH + 2 * MARGIN);
  const height = lines.length * CELL_HEIGHT + 2 * MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" ` +
      `font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="${FONT_SIZE}" ` +
      `role="img" aria-label="${escaped(label)}">`,
    `<rect width="${width}" height="${height}" rx="8" fill="${BACKGROUND}"/>`,
    ...lines.flatMap((line, row) => piecesOf(line).flatMap((piece) => drawn(piece, row))),
    '</svg>',
    '',
  ].join('\n');
}

/**
 * A line cut where its look changes, and where blocks begin and end.
 * @param {string} line
 * @returns {Piece[]}
 */
function piecesOf(line) {
  /** @type {Look} */
  let look = { color: FOREGROUND, isBold: false };
  let at = 0;
  /** @type {Piece[]} */
  const pieces = [];
  for (const [index, part] of line.split(SEQUENCE).entries()) {
    const end = index === 0 ? -1 : part.indexOf('m');
    for (const number of part.slice(0, Math.max(0, end)).split(';')) {
      look = { ...look, ...(end < 0 ? {} : SGR[Number(number)]) };
    }
    // Runs of blocks, of spaces, and of words.
    for (const [text] of part.slice(end + 1).matchAll(/[▁-█░]+| +|(?:[^▁-█░ ]| (?! ))+/g)) {
      if (text.trim() !== '') pieces.push({ text, at, look });
      at += text.length;
    }
  }
  return pieces;
}

/**
 * @param {Piece} piece
 * @param {number} row
 * @returns {string[]}
 */
function drawn({ text, at, look }, row) {
  const top = MARGIN + row * CELL_HEIGHT;
  if (text[0] === SHADE || BLOCKS.includes(text[0] ?? '')) {
    return [...text].map((block, index) => blockOf(block, at + index, top, look.color));
  }
  const bold = look.isBold ? ' font-weight="bold"' : '';
  // The length keeps the columns aligned whatever font there is.
  const length = text.length * CELL_WIDTH;
  return [
    `<text x="${rounded(MARGIN + at * CELL_WIDTH)}" y="${top + 14}" fill="${look.color}"${bold} ` +
      `textLength="${rounded(length)}" lengthAdjust="spacingAndGlyphs" ` +
      `xml:space="preserve">${escaped(text)}</text>`,
  ];
}

/**
 * @param {string} block
 * @param {number} column
 * @param {number} top
 * @param {string} color
 */
function blockOf(block, column, top, color) {
  const isShade = block === SHADE;
  const eighths = isShade ? 8 : BLOCKS.indexOf(block) + 1;
  const full = CELL_HEIGHT - 3;
  const height = (full * eighths) / 8;
  const x = rounded(MARGIN + column * CELL_WIDTH);
  const opacity = isShade ? ' fill-opacity="0.25"' : '';
  return (
    `<rect x="${x}" y="${rounded(top + 1 + full - height)}" width="${CELL_WIDTH - 0.9}" ` +
    `height="${rounded(height)}" fill="${color}"${opacity}/>`
  );
}

/** @param {number} value */
function rounded(value) {
  return Number(value.toFixed(2));
}

/** @param {string} text */
function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
