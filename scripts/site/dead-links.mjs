// Links of a folder of HTML pages that lead nowhere.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

/**
 * @param {string} folder
 * @returns {string[]} page, and where its link leads
 */
export function deadLinks(folder) {
  const pages = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(?:html|svg)$/.test(name))
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
  const ids = new Map(
    pages.map(({ name, text }) => [
      name,
      new Set([...text.matchAll(/\bid="([^"]*)"/g)].map(([, id]) => id)),
    ]),
  );
  const html = pages.filter(({ name }) => name.endsWith('.html'));
  return html.flatMap(({ name, text }) =>
    [...text.matchAll(/\b(?:href|src)="([^"]*)"/g)].flatMap(([, link = '']) => {
      if (/^[a-z]+:/.test(link)) return [];
      const [path = '', anchor = ''] = link.split('#').map(decodeURIComponent);
      const target = path === '' ? name : normalize(join(dirname(name), path));
      const isFound =
        anchor === '' ? existsSync(join(folder, target)) : ids.get(target)?.has(anchor) === true;
      return isFound ? [] : [`${name}: ${link} leads nowhere`];
    }),
  );
}
