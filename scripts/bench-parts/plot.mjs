// The ratios as bars in an SVG that reads on light and on dark pages.

/** @import { BenchResult, Pair } from './report.mjs' */

const ROW = 22;
const LEFT = 230;
const WIDTH = 860;
const RIGHT = 70;
const HEAD = 58;

/**
 * A bar a case and target from 0 to the ratio, its range as a line, and the wanted ratio.
 * @param {{ plan: { variants: Pair<string> }, results: readonly BenchResult[] }} run
 */
export function plotOf({ plan, results }) {
  const widest = Math.max(2, ...results.map((result) => result.speed.max));
  const scale = (WIDTH - LEFT - RIGHT) / widest;
  const height = HEAD + results.length * ROW + 34;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
      'font-family="system-ui, sans-serif" font-size="12">',
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(16, 24, `Speed of ${plan.variants[0]} relative to ${plan.variants[1]}`, 'font-size="16"'),
    text(16, 42, 'median of paired runs; thin line: lowest to highest pair; tick: the goal', GREY),
  ];
  const bottom = HEAD + results.length * ROW;
  for (let mark = 0; mark <= widest; mark += 0.5) {
    const x = LEFT + mark * scale;
    const stroke = mark === 1 ? 'stroke="#555555" stroke-width="1.5"' : 'stroke="#dddddd"';
    parts.push(`<line x1="${x}" y1="${HEAD - 6}" x2="${x}" y2="${bottom}" ${stroke}/>`);
    parts.push(text(x, bottom + 16, `${mark}x`, `text-anchor="middle" ${GREY}`));
  }
  results.forEach((result, index) => {
    parts.push(...bar(result, HEAD + index * ROW, scale));
  });
  parts.push('</svg>', '');
  return parts.join('\n');
}

const GREY = 'fill="#555555"';
/** @type {Readonly<Record<string, string>>} */
const COLOURS = { fast: '#2166ac', tgt: '#5aae61' };

/**
 * @param {BenchResult} result
 * @param {number} top
 * @param {number} scale
 */
function bar(result, top, scale) {
  const { speed, target } = result;
  const colour = COLOURS[target] ?? '#888888';
  const middle = top + ROW / 2;
  /** @param {number} ratio */
  const x = (ratio) => (LEFT + ratio * scale).toFixed(1);
  const goal = target === 'fast' ? result.case.atLeast : 1;
  return [
    text(LEFT - 8, middle + 4, `${result.case.name} (${target})`, 'text-anchor="end"'),
    `<rect x="${LEFT}" y="${top + 4}" width="${(speed.median * scale).toFixed(1)}" ` +
      `height="${ROW - 8}" fill="${colour}"/>`,
    `<line x1="${x(speed.min)}" y1="${middle}" x2="${x(speed.max)}" y2="${middle}" ` +
      'stroke="#000000"/>',
    `<line x1="${x(goal)}" y1="${top + 1}" x2="${x(goal)}" y2="${top + ROW - 1}" ` +
      'stroke="#b2182b" stroke-width="2"/>',
    text(Number(x(speed.max)) + 6, middle + 4, `${speed.median.toFixed(2)}x`, ''),
  ];
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} words
 * @param {string} attributes
 */
function text(x, y, words, attributes) {
  const escaped = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${x}" y="${y}" ${attributes}>${escaped}</text>`;
}
