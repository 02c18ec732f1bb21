import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  commentLanguage,
  PHRASES,
  pageLanguage,
  textLanguage,
  titleLanguage,
} from './language-rules.js';

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

/** Folders whose comments are in plain technical English. */
const COMMENT_FOLDERS: readonly string[] = [
  ...['base', 'scsi', 'nbd', 'iscsi', 'io', 'target', 'config', 'errors', 'boot', 'boot-test'],
  ...['bridge', 'lun', 'session', 'check', 'demo', 'control', 'cli', 'csi', 'docker-plugin'],
  ...['supervisor', 'volume', 'daemon', 'workers'],
].map((room) => `src/${room}`);

const TEST_FOLDERS = readdirSync(new URL('test', ROOT), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => `test/${name}`);

describe('the language of pages and texts', () => {
  it('the pages have none of the phrases that are hard to understand', () => {
    expect(PAGES.flatMap(pageLanguage)).toEqual([]);
  });

  it('help, messages and events have none of these phrases', () => {
    expect(under('src', /\.ts$/).flatMap(textLanguage)).toEqual([]);
  });

  it('titles of tests have none of these phrases', () => {
    expect(under('test', /\.test\.ts$/).flatMap(titleLanguage)).toEqual([]);
  });

  it.each([...COMMENT_FOLDERS, ...TEST_FOLDERS, 'native', 'scripts'])(
    'comments in %s have none of these phrases',
    (folder) => {
      expect(under(folder, /\.(?:ts|mjs|cjs|cc|c|h)$/).flatMap(commentLanguage)).toEqual([]);
    },
  );

  it.each(PHRASES)('a page and a text with $example are found', ({ phrase, example }) => {
    const [first = '', ...rest] = example.split(' ');
    const planted = `# Page\n\n${first}\n${rest.join(' ')}\n`;
    expect(pageLanguage({ path: 'a.md', text: planted }).join()).toContain('a.md: "');
    const text = `const told = ${JSON.stringify(example)};`;
    expect(textLanguage({ path: 'a.ts', text }).join()).toContain('a.ts:1: "');
    const title = `it(${JSON.stringify(example)}, () => {});`;
    expect(titleLanguage({ path: 'a.ts', text: title }).join()).toContain('a.ts: "');
    const block = `/**\n * ${first}\n * ${rest.join(' ')}\n */\nlet a;`;
    expect(commentLanguage({ path: 'a.ts', text: block }).join()).toContain('a.ts:1: "');
    const lines = `let a; // ${first}\n// ${rest.join(' ')}\n`;
    expect(commentLanguage({ path: 'a.cc', text: lines }).join()).toContain('a.cc:1: "');
    expect(example.search(phrase)).toBeGreaterThanOrEqual(0);
  });

  it('code in a page is left out', () => {
    expect(pageLanguage({ path: 'a.md', text: '```sh\necho nobody\n```\n`nobody`\n' })).toEqual([]);
  });
});
