import { VolumeError } from './volume-error.js';
import type { VolumeHost } from './volume-host.js';

const PROBE_MS_MAX = 60_000;
const MIB = 1 << 20;
/** blkid(8): nothing was found; several signatures contradict each other. */
const BLKID_NOTHING = 2;
const BLKID_AMBIVALENT = 8;

/** What is on a disk: nothing at all, a file system, or something else, which may be data. */
export type DiskContent =
  | { readonly kind: 'blank' }
  | { readonly kind: 'fileSystem'; readonly type: string }
  | { readonly kind: 'other'; readonly what: string };

/**
 * What is on a disk. It is blank only if libblkid finds no signature of any kind and its first and
 * last MiB are all zeros; if that cannot be found out, this throws VolumeError, so that nothing is
 * ever formatted in doubt.
 */
export async function contentOf(host: VolumeHost, device: string): Promise<DiskContent> {
  // -p: the disk itself, never a cache; -c is of no use with it (blkid(8)).
  const args = ['-p', '-o', 'export', device];
  const { status, stdout, stderr } = await host.run('blkid', args, PROBE_MS_MAX);
  if (status === BLKID_AMBIVALENT) {
    return { kind: 'other', what: 'signatures of several kinds at once' };
  }
  if (status === 0) return signatureOf(stdout);
  if (status !== BLKID_NOTHING) {
    const words = `blkid cannot examine ${device} (status ${status}): ${stderr.trim()}`;
    throw new VolumeError('failed', `${words}. Nothing is changed on it.`);
  }
  const sizeBytes = await host.sizeOf(device);
  if (sizeBytes <= 0) throw new VolumeError('unavailable', `${device} has no size now; try again.`);
  for (const [where, offsetBytes] of [
    ['first', 0],
    ['last', Math.max(0, sizeBytes - MIB)],
  ] as const) {
    const lengthBytes = Math.min(MIB, sizeBytes);
    const bytes = await host.read(device, offsetBytes, lengthBytes);
    if (bytes.length !== lengthBytes) {
      throw new VolumeError('failed', `The ${where} MiB of ${device} cannot be read as a whole.`);
    }
    if (!isZero(bytes)) return { kind: 'other', what: `data without a signature (${where} MiB)` };
  }
  return { kind: 'blank' };
}

/** `NAME=value` a line. A partition table without a file system is PTTYPE only. */
function signatureOf(text: string): DiskContent {
  const fields = new Map(
    text.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)] as const;
    }),
  );
  const type = fields.get('TYPE');
  const table = fields.get('PTTYPE');
  if (table !== undefined) return { kind: 'other', what: `a partition table (${table})` };
  if (type === undefined) return { kind: 'other', what: 'a signature that blkid does not name' };
  if (fields.get('USAGE') === 'filesystem') return { kind: 'fileSystem', type };
  return { kind: 'other', what: `a signature of ${type}` };
}

function isZero(bytes: Buffer): boolean {
  return bytes.equals(Buffer.alloc(bytes.length));
}
