import { lstat, unlink } from 'node:fs/promises';
import { connect, type ListenOptions, type Server } from 'node:net';
import { errnoOf, UsageError } from '../base/errors.js';

/** A process that may use the socket may use disks: it is for its owner. */
const SOCKET_UMASK = 0o177;

/** `file`: something else has this name. `busy`: another process listens there. */
type SocketPathFault = 'file' | 'busy';

/**
 * Makes sure that a unix socket can be bound to `path`: nothing exists there, or the socket of a
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

/** As `freeSocketPath`, for the path of a flag. Throws UsageError 7, or 28 if a server has it. */
export async function requireFreePath(
  flag: string,
  path: string,
  { server, code }: { readonly server: string; readonly code?: string },
): Promise<void> {
  const fault = await freeSocketPath(path);
  if (fault === 'file') {
    throw new UsageError(`${flag} ${path}: there is a file of that name; choose another path.`);
  }
  if (fault === 'busy') {
    throw new UsageError(`${flag} ${path}: another ${server} listens there; stop it first.`, {
      exitCode: 28,
      ...(code === undefined ? {} : { code }),
    });
  }
}

/** A path, an address, or a descriptor that listens already. */
type ListenPlace = ListenOptions | { readonly fd: number };

/**
 * Listens; a unix socket is for its owner from the instant at which its path exists. Rejects with
 * what the system says.
 */
export function listenPrivately(server: Server, place: ListenPlace): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // The path is bound inside `listen`, so no process ever sees another mode.
    const before = process.umask(SOCKET_UMASK);
    try {
      server.listen(place, () => resolve());
    } finally {
      process.umask(before);
    }
  });
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
