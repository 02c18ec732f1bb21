import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { errnoOf } from '../base/errors.js';

/** `file`: something else has this name. `busy`: another process listens there. */
type SocketPathFault = 'file' | 'busy';

/**
 * Makes sure that a unix socket can be bound to `path`: nothing is there, or the socket of a
 * process that has died, which is removed. Null when it can.
 */
export async function freeSocketPath(path: string): Promise<SocketPathFault | null> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return null;
  if (!found.isSocket()) return 'file';
  if (await isListening(path)) return 'busy';
  await unlink(path).catch(() => undefined);
  return null;
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      resolve(!['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error)));
    });
  });
}
