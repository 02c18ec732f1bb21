import { createHash } from 'node:crypto';
import { UsageError } from '../base/errors.js';
import { formatPortal, type PortalAddress } from '../iscsi/portal.js';
import type { SessionIdentity } from '../iscsi/session-config.js';
import type { SessionOptions } from './contract.js';
import { EXIT_CODES } from './exit-codes.js';
import { IdentityLock } from './identity-lock.js';

type ClaimSubject = {
  readonly targetName: string;
  readonly identity: SessionIdentity;
  /** Every portal the session may use. */
  readonly portals: readonly PortalAddress[];
};

/** Nothing to claim for a session that writes nothing, or is meant to share. */
export function claimsFor(
  subject: ClaimSubject,
  options: Pick<SessionOptions, 'initiatorName' | 'readOnly' | 'shared'>,
): LunClaims | undefined {
  if (options.readOnly || options.shared === true) return undefined;
  return new LunClaims(subject, options.initiatorName);
}

/**
 * The right of one session of this host to write to a LUN. Two disks made of one LUN have caches
 * that know nothing of each other, and a file system on them does not survive that. A session that
 * only reads claims nothing. Claims end with their process.
 */
export class LunClaims {
  readonly #subject: ClaimSubject;
  readonly #initiatorName: string;
  readonly #locks = new Map<string, IdentityLock>();
  #isReleased = false;

  constructor(subject: ClaimSubject, initiatorName: string) {
    this.#subject = subject;
    this.#initiatorName = initiatorName;
  }

  /**
   * Takes a LUN; `remote` is the address the session is connected to, where that is known: a
   * portal may be named and then be the same as one that is not. Throws UsageError 15.
   */
  async take(lun: number, remote: PortalAddress | null): Promise<void> {
    const { targetName, portals, identity } = this.#subject;
    await this.#lock(this.#identityKey(), (pid) => {
      const isid = Buffer.from(identity.isid).toString('hex');
      return (
        `Process ${pid} has a session with the ISID ${isid} of this one: its state directory is a ` +
        'copy of ours. Give this process another; two sessions of one identity end each other'
      );
    });
    const all = [...portals, ...(remote === null ? [] : [remote])];
    const places = new Set(all.map(({ host, port }) => formatPortal({ host, port })));
    for (const place of places) {
      const key = digestOf(['lun', targetName, place.toLowerCase(), lun]);
      await this.#lock(
        key,
        (pid, session) =>
          `Process ${pid} has LUN ${lun} of ${targetName} already, in session ${session}: two ` +
          'disks of one LUN corrupt what is on it. Use that one, or log it out first; --read-only ' +
          'is allowed, and --shared where a cluster file system minds both',
      );
    }
  }

  /** May be called again. */
  async release(): Promise<void> {
    this.#isReleased = true;
    const locks = [...this.#locks.values()];
    this.#locks.clear();
    await Promise.all(locks.map((lock) => lock.release()));
  }

  async #lock(key: string, words: (pid: string, session: string) => string): Promise<void> {
    if (this.#locks.has(key)) return;
    const lock = await IdentityLock.take(key, `${process.pid} ${this.#subject.identity.sessionId}`);
    if (lock === null) {
      const [pid = '', session = ''] = (await IdentityLock.holderOf(key)).split(' ');
      // Anybody on this machine can hold such a name; what it says is only shown if it is ours.
      const isOurs = /^\d{1,10}$/.test(pid) && /^[0-9a-f]{16}$/.test(session);
      throw new UsageError(`${isOurs ? words(pid, session) : words('unknown', 'unknown')}.`, {
        exitCode: EXIT_CODES.sessionExists.code,
        code: 'ERR_LUN_IN_USE',
      });
    }
    if (this.#isReleased) await lock.release();
    else this.#locks.set(key, lock);
  }

  #identityKey(): string {
    const { identity } = this.#subject;
    return digestOf(['isid', this.#initiatorName, Buffer.from(identity.isid).toString('hex')]);
  }
}

/** A name of a fixed length, for those of sockets are short. */
function digestOf(parts: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}
