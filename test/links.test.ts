import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const ROOT = new URL('../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), 'utf8');
const PAGES = [
  ...readdirSync(ROOT, 'utf8').filter((name) => name.endsWith('.md')),
  ...readdirSync(new URL('docs', ROOT), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
  'scripts/README.md',
];

/** The anchors of a page, made of its headings as GitHub does. */
function anchorsOf(page: string): string[] {
  const headings = withoutCode(page).matchAll(/^#{1,6} (.+)$/gm);
  const slugs = [...headings].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
  return slugs.map((slug, index) => {
    const before = slugs.slice(0, index).filter((other) => other === slug).length;
    return before === 0 ? slug : `${slug}-${before}`;
  });
}

/** Links to files that do not exist, and to headings that a page does not have. */
function deadLinks(path: string, text: string): string[] {
  const links = withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g);
  return [...links].flatMap(([, target = '']) => {
    if (/^[a-z]+:/.test(target)) return [];
    const [file = '', anchor] = target.split('#');
    const place = file === '' ? new URL(path, ROOT) : new URL(file, new URL(path, ROOT));
    if (file !== '' && !existsSync(place)) return [`${path}: ${target}`];
    if (anchor === undefined) return [];
    const page = file === '' ? text : readFileSync(place, 'utf8');
    return anchorsOf(page).includes(anchor) ? [] : [`${path}: ${target}`];
  });
}

function withoutCode(text: string): string {
  return text.replace(/^```.*?^```/gms, '').replace(/^ +```.*?^ +```/gms, '');
}

describe('links', () => {
  it('every link of a page leads to a file, and to a heading that it has', () => {
    expect(PAGES.flatMap((path) => deadLinks(path, read(path)))).toEqual([]);
  });

  it('README leads to every page', () => {
    const linked = read('README.md');
    const pages = PAGES.filter((path) => !/^README|^docs\/adr\/\d/.test(path));
    expect(pages.filter((path) => !linked.includes(`(${path}`))).toEqual([]);
  });

  it('a missing file and a missing heading are found', () => {
    const planted = '# Page\n[a](no-such-page.md) [b](#page) [c](README.md#no-such-heading)\n';
    const dead = ['a.md: no-such-page.md', 'a.md: README.md#no-such-heading'];
    expect(deadLinks('a.md', planted)).toEqual(dead);
  });
});
