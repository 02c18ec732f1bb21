// The figures in docs/PERFORMANCE.md stand between markers with a name.
import { readFileSync, writeFileSync } from 'node:fs';

const PAGE = new URL('../../docs/PERFORMANCE.md', import.meta.url);

/**
 * Replaces what stands between the markers of this name by `text`, whole lines.
 * @param {string} name
 * @param {string} text
 */
export function putIntoPage(name, text) {
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const [before, rest] = readFileSync(PAGE, 'utf8').split(begin);
  const after = rest?.split(end)[1];
  if (after === undefined) throw new Error(`docs/PERFORMANCE.md has no place for ${name}`);
  writeFileSync(PAGE, `${before}${begin}\n${text}${end}${after}`);
}
