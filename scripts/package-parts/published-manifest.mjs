// node scripts/package-parts/published-manifest.mjs VERSION: prints the package.json of the npm
// package, made of that of the clone.
import { readFileSync } from 'node:fs';

const clone = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const { name, description, license, type, engines, os } = clone;
const manifest = {
  ...{ name, version: process.argv[2], description, license, type, engines, os },
  bin: { 'iscsi-nbd': 'dist/boot/main.mjs' },
  exports: { '.': { types: './dist/library.d.ts', default: './dist/boot/library.mjs' } },
  scripts: { install: 'node scripts/addon/build.mjs --if-needed' },
};
process.stdout.write(`${JSON.stringify(manifest, null, 2)}\n`);
