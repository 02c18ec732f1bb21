// The figures in docs/PERFORMANCE.md, and in other pages, stand between markers with a name.
import { readFileSync, writeFileSync } from 'node:fs';

const DOCS = new URL('../../docs/', import.meta.url);

/**
 * Replaces what stands between the markers of this name by `text`, whole lines.
 * @param {string} name
 * @param {string} text
 * @param {string} [page]
 */
export function putIntoPage(name, text, page = 'PERFORMANCE.md') {
  const path = new URL(page, DOCS);
  const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
  const [before, rest] = readFileSync(path, 'utf8').split(begin);
  const after = rest?.split(end)[1];
  if (after === undefined) throw new Error(`docs/${page} has no place for ${name}`);
  writeFileSync(path, `${before}${begin}\n${text}${end}${after}`);
}
