import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { PHRASES, pageLanguage, textLanguage } from './language-rules.js';

const ROOT = new URL('../', import.meta.url);
const read = (path: string) => ({ path, text: readFileSync(new URL(path, ROOT), 'utf8') });
const under = (folder: string, ending: RegExp) =>
  readdirSync(new URL(folder, ROOT), { recursive: true, encoding: 'utf8' })
    .filter((name) => ending.test(name))
    .sort()
    .map((name) => read(`${folder}/${name}`));

/** The map of RFC 7143 has titles of tests, which its generator copies. */
const PAGES = [
  ...readdirSync(ROOT, 'utf8')
    .filter((name) => name.endsWith('.md'))
    .map(read),
  ...under('docs', /\.md$/).filter(({ path }) => path !== 'docs/rfc7143-map.md'),
  ...under('man', /\.\d$/),
  read('scripts/README.md'),
  read('packaging/config.yaml'),
];

describe('the language of pages and texts', () => {
  it('the pages have none of the phrases that are hard to understand', () => {
    expect(PAGES.flatMap(pageLanguage)).toEqual([]);
  });

  it('help, messages and events have none of these phrases', () => {
    expect(under('src', /\.ts$/).flatMap(textLanguage)).toEqual([]);
  });

  it.each(PHRASES)('a page and a text with $example are found', ({ phrase, example }) => {
    const [first = '', ...rest] = example.split(' ');
    const planted = `# Page\n\n${first}\n${rest.join(' ')}\n`;
    expect(pageLanguage({ path: 'a.md', text: planted }).join()).toContain('a.md: "');
    const text = `const told = ${JSON.stringify(example)};`;
    expect(textLanguage({ path: 'a.ts', text }).join()).toContain('a.ts:1: "');
    expect(example.search(phrase)).toBeGreaterThanOrEqual(0);
  });

  it('code in a page is left out', () => {
    expect(pageLanguage({ path: 'a.md', text: '```sh\necho nobody\n```\n`nobody`\n' })).toEqual([]);
  });
});
