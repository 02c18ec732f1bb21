import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const PAGE = new URL('../../../docs/CONFORMANCE.md', import.meta.url);

it('docs/CONFORMANCE.md names tests of login and CHAP that exist', () => {
  const rows = [...readFileSync(PAGE, 'utf8').matchAll(/^\| [LC] [0-9.]+ \| [^|]+ \| (.+) \|$/gm)];
  const named = rows
    .flatMap(([, tests = '']) => tests.split('; '))
    .filter((test) => test !== 'the same' && !test.startsWith('none: '));
  expect(named.length).toBeGreaterThan(40);
  for (const test of named) {
    const [, title = '', file = ''] = /^(.*) \(([a-z-]+)\)$/.exec(test) ?? [test];
    const text = readFileSync(new URL(`./${file}.test.ts`, import.meta.url), 'utf8');
    expect(text.includes(`'${title}'`), test).toBe(true);
  }
});
