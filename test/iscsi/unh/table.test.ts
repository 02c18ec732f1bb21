import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const HERE = new URL('./', import.meta.url);
const PAGE = new URL('../../../docs/CONFORMANCE.md', import.meta.url);

it('docs/CONFORMANCE.md lists as tested what is the number of a test, and the rest as not applying', () => {
  const rows = [...readFileSync(PAGE, 'utf8').matchAll(/^\| ([0-9.]+) \| [^|]+ \| ([^|]+) \|/gm)];
  const tested = rows.filter(([, , what]) => !what!.startsWith('does not apply'));
  const files = readdirSync(HERE).filter((name) => /^(?!table).*\.test\.ts$/.test(name));
  const titles = files.map((name) => readFileSync(new URL(name, HERE), 'utf8')).join('\n');
  const numbers = new Set([...titles.matchAll(/'#([0-9.]+) \(/g)].map(([, number]) => number));
  expect(rows).toHaveLength(66);
  expect(tested).toHaveLength(57);
  expect(tested.map(([, number]) => number)).toEqual(
    [...numbers].sort((left, right) => left!.localeCompare(right!, 'en', { numeric: true })),
  );
});
