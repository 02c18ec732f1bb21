// node scripts/package-parts/third-party.mjs sbom|licences [--with-node VERSION FOLDER]: what the
// bundled program has in it besides our own code, and the Node in FOLDER. `sbom` prints a list in
// the form of CycloneDX, made by npm of package-lock.json; `licences` prints the texts.
// `add-debian LIST PACKAGES` prints such a list with Debian's packages added, as dpkg-query -W has them.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(fileURLToPath(import.meta.url), '../../..');
/** Their headers are compiled into the addon. */
const IN_ADDON = ['node-addon-api', 'node-api-headers'];

/** @typedef {{ name: string, version: string, licence: string, folder: string }} Part */

const [what, list = '', nodeVersion, nodeFolder = ''] = process.argv.slice(2);
const { name, version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const packagesVersion = process.env['ISCSI_NBD_VERSION'] || version;

/** @returns {Part[]} */
function parts() {
  /** @type {{ packages: Record<string, { version: string, license?: string, dev?: boolean }> }} */
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'));
  const isPart = ([path = '', { dev = false } = {}]) =>
    path !== '' && (!dev || IN_ADDON.includes(path.replace('node_modules/', '')));
  const modules = Object.entries(lock.packages).filter(isPart);
  const found = modules.map(([path, { version, license = 'see its text' }]) => {
    const name = path.replace(/^.*node_modules\//, '');
    return { name, version, licence: license, folder: join(ROOT, path) };
  });
  if (nodeVersion === undefined) return found;
  return [{ name: 'node', version: nodeVersion, licence: 'MIT', folder: nodeFolder }, ...found];
}

/** @param {Part} part */
function licenceText({ name, version, licence, folder }) {
  const files = readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file));
  const texts = files.sort().map((file) => readFileSync(join(folder, file), 'utf8').trim());
  const line = '='.repeat(78);
  return `${line}\n${name} ${version} (${licence})\n${line}\n\n${texts.join('\n\n')}\n`;
}

function sbom() {
  const args = ['sbom', '--package-lock-only', '--omit', 'dev', '--sbom-format', 'cyclonedx'];
  const list = JSON.parse(execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8' }));
  const epoch = Number(process.env['SOURCE_DATE_EPOCH']);
  list.metadata.timestamp = new Date(epoch * 1000).toISOString();
  // npm has the name of the clone's folder there.
  list.metadata.component.name = name;
  list.metadata.component.version = packagesVersion;
  const known = new Set(list.components.map((/** @type {{ name: string }} */ each) => each.name));
  for (const { name, version, licence } of parts().filter((each) => !known.has(each.name))) {
    const purl = name === 'node' ? `pkg:generic/node@${version}` : `pkg:npm/${name}@${version}`;
    list.components.push({
      ...{ 'bom-ref': `${name}@${version}`, type: name === 'node' ? 'application' : 'library' },
      ...{ name, version, scope: 'required', purl, licenses: [{ license: { id: licence } }] },
    });
  }
  return numbered(list);
}

/** @param {string} path @param {string} packages */
function withDebian(path, packages) {
  const list = JSON.parse(readFileSync(path, 'utf8'));
  for (const line of readFileSync(packages, 'utf8').trim().split('\n')) {
    const [name = '', version = ''] = line.split('\t');
    if (name === 'iscsi-nbd') continue;
    const purl = `pkg:deb/debian/${name.replace(/:.*/, '')}@${encodeURIComponent(version)}`;
    const text = `/usr/share/doc/${name.replace(/:.*/, '')}/copyright in the image`;
    list.components.push({
      ...{ 'bom-ref': `debian/${name}@${version}`, type: 'library', name, version },
      ...{ scope: 'required', purl, licenses: [{ license: { name: text } }] },
    });
  }
  return numbered(list);
}

/**
 * The number that names a list is made of what is in it, so that it is the same every time.
 * @param {{ serialNumber?: string }} list
 */
function numbered(list) {
  delete list.serialNumber;
  const hex = createHash('sha256').update(JSON.stringify(list)).digest('hex');
  const uuid = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-8${hex.slice(17, 20)}`;
  list.serialNumber = `urn:uuid:${uuid}-${hex.slice(20, 32)}`;
  return `${JSON.stringify(list, null, 2)}\n`;
}

if (what === 'sbom') process.stdout.write(sbom());
else if (what === 'add-debian') process.stdout.write(withDebian(list, nodeVersion ?? ''));
else process.stdout.write(parts().map(licenceText).join('\n'));
