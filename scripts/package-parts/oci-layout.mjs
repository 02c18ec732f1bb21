// node scripts/package-parts/oci-layout.mjs LAYER FOLDER VERSION REVISION: makes FOLDER an OCI image
// layout (image-spec, image-layout.md) whose image has the tar file LAYER as its only layer, which is
// moved. The same arguments and SOURCE_DATE_EPOCH give the same bytes.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [layer = '', folder = '', version = '', revision = ''] = process.argv.slice(2);
const created = new Date(Number(process.env['SOURCE_DATE_EPOCH']) * 1000).toISOString();
const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
const blobs = join(folder, 'blobs/sha256');
const MEDIA = 'application/vnd.oci.image';

/** @param {string} path */
async function sha256(path) {
  const hash = createHash('sha256');
  for await (const bytes of createReadStream(path)) hash.update(bytes);
  return hash.digest('hex');
}

/**
 * Moves a file to the blobs, and returns its descriptor.
 * @param {string} path
 * @param {string} type
 */
async function blob(path, type) {
  const [hash, { size }] = [await sha256(path), statSync(path)];
  renameSync(path, join(blobs, hash));
  return { mediaType: `${MEDIA}.${type}`, digest: `sha256:${hash}`, size };
}

/**
 * @param {string} name
 * @param {object} content
 */
function json(name, content) {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(content));
  return path;
}

mkdirSync(blobs, { recursive: true });
const diffId = `sha256:${await sha256(layer)}`;
const fast = process.env['ISCSI_NBD_FAST'];
if (!fast) execFileSync('gzip', ['-9nf', layer]);
const layers = [await blob(fast ? layer : `${layer}.gz`, `layer.v1.tar${fast ? '' : '+gzip'}`)];
const config = {
  ...{ created, architecture, os: 'linux' },
  config: {
    Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
    Entrypoint: ['/usr/bin/iscsi-nbd'],
    Cmd: ['daemon'],
    Labels: {
      'org.opencontainers.image.title': 'iscsi-nbd',
      'org.opencontainers.image.version': version,
      'org.opencontainers.image.licenses': 'MIT',
      ...(revision === '' ? {} : { 'org.opencontainers.image.revision': revision }),
    },
  },
  rootfs: { type: 'layers', diff_ids: [diffId] },
  history: [{ created, created_by: 'scripts/package image' }],
};
const manifest = {
  ...{ schemaVersion: 2, mediaType: `${MEDIA}.manifest.v1+json` },
  config: await blob(json('config', config), 'config.v1+json'),
  layers,
};
const image = await blob(json('manifest', manifest), 'manifest.v1+json');
const annotations = { 'org.opencontainers.image.ref.name': version };
json('index.json', {
  ...{ schemaVersion: 2, mediaType: `${MEDIA}.index.v1+json` },
  manifests: [{ ...image, platform: { architecture, os: 'linux' }, annotations }],
});
json('oci-layout', { imageLayoutVersion: '1.0.0' });
