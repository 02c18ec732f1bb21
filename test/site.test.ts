import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { deadLinks } from '../scripts/site/dead-links.mjs';
import { FRONT_PAGE, GROUPS } from '../scripts/site/pages.mjs';

const ROOT = new URL('../', import.meta.url);
const pagesOf = (folder: string) =>
  readdirSync(new URL(folder, ROOT), 'utf8')
    .filter((name) => name.endsWith('.md'))
    .map((name) => folder + name);

describe('the site', () => {
  it('each Markdown page is in one group', () => {
    const folders = ['', 'docs/', 'docs/adr/', 'docs/json-schema/', 'scripts/'];
    const pages = [FRONT_PAGE, ...GROUPS.flatMap(([, paths]) => paths)];
    expect(pages.toSorted()).toEqual(folders.flatMap(pagesOf).sort());
  });
});

describe('the check of links', () => {
  const folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-site-'));
  afterEach(() => rmSync(folder, { recursive: true }));

  it('a missing page, a missing heading and a missing picture are reported, others are not', () => {
    writeFileSync(join(folder, 'b.html'), '<h2 id="here">');
    const links = [
      'b.html',
      'b.html#here',
      '#top',
      'https://example.com/x',
      'mailto:a@b',
      'c.html',
    ];
    const page = [...links, 'b.html#gone'].map((link) => `<a href="${link}">`).join('');
    writeFileSync(join(folder, 'a.html'), `<p id="top">${page}<img src="d.svg">`);
    expect(deadLinks(folder)).toEqual([
      'a.html: c.html leads nowhere',
      'a.html: b.html#gone leads nowhere',
      'a.html: d.svg leads nowhere',
    ]);
  });
});
