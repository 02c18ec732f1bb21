// node scripts/package-parts/declarations.mjs FILE.d.ts: prints this file and those that it imports,
// and they import in turn. A module of another package among them is an error: the npm package has
// no dependencies whose types it could name.
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** @type {Set<string>} */
const found = new Set();

/** @param {string} file */
function walk(file) {
  if (found.has(file)) return;
  found.add(file);
  for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(/(?:from |import\()'([^']+)'/g)) {
    if (name.startsWith('.')) walk(resolve(dirname(file), name.replace(/\.js$/, '.d.ts')));
    else if (!name.startsWith('node:')) throw new Error(`${file} names the package ${name}`);
  }
}

walk(resolve(process.argv[2] ?? ''));
process.stdout.write(`${[...found].sort().join('\n')}\n`);
