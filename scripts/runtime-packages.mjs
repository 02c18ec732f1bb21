// Prints the folders of node_modules that the program loads, for scripts/install: what is needed
// to build the addon is left away.
import { existsSync, readFileSync } from 'node:fs';

const BUILD_ONLY = new Set(['cmake-js', 'node-addon-api']);
const found = new Set();

const dependenciesOf = (folder) =>
  Object.keys(JSON.parse(readFileSync(`${folder}/package.json`, 'utf8')).dependencies ?? {});

/** Node's own way: the nearest node_modules from `folder` upwards. */
function folderOf(name, folder) {
  for (let at = folder; ; at = at.replace(/\/?node_modules\/(@[^/]+\/)?[^/]+$/, '') || '.') {
    const path = at === '.' ? `node_modules/${name}` : `${at}/node_modules/${name}`;
    if (existsSync(path)) return path;
    if (at === '.') throw new Error(`${name}, which ${folder} needs, is not in node_modules`);
  }
}

function visit(folder, names) {
  for (const name of names) {
    const path = folderOf(name, folder);
    if (found.has(path)) continue;
    found.add(path);
    visit(path, dependenciesOf(path));
  }
}

visit(
  '.',
  dependenciesOf('.').filter((name) => !BUILD_ONLY.has(name)),
);
console.log([...found].sort().join('\n'));
