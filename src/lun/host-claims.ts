import { createHash } from 'node:crypto';
import { productError, UsageError } from '../base/errors.js';
import type { SessionOptions } from '../config/contract.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { ProcessLock } from '../io/process-lock.js';
import { formatPortal, type PortalAddress } from '../iscsi/login/portal.js';
import { normalIscsiName } from '../iscsi/login/target-name.js';
import type { SessionIdentity } from '../iscsi/session/session-config.js';
import { unitNames } from '../scsi/designator.js';
import type { DiskFacts } from '../scsi/disk-facts.js';

type ClaimSubject = {
  readonly targetName: string;
  readonly identity: SessionIdentity;
  /** Every portal the session may use. */
  readonly portals: readonly PortalAddress[];
};
type ClaimOptions = Pick<SessionOptions, 'initiatorName' | 'readOnly' | 'shared'>;

type ClaimedTarget = {
  readonly targetName: string;
  readonly units: readonly { readonly otherLun: number }[];
};

/**
 * The right of one session of this host to its identity, and to write to its LUNs. Two disks made
 * of one LUN have caches that know nothing of each other, and a file system on them does not
 * survive that. A session that only reads, or has the option to share, claims no LUN. Claims end
 * with their process.
 */
export class HostClaims {
  readonly #subject: ClaimSubject;
  readonly #options: ClaimOptions;
  readonly #locks = new Map<string, ProcessLock>();
  /** Every portal that the session may use. */
  readonly #portals: PortalAddress[];
  #isReleased = false;

  constructor(subject: ClaimSubject, options: ClaimOptions) {
    this.#subject = subject;
    this.#portals = [...subject.portals];
    this.#options = options;
  }

  /**
   * To be taken before a login: the target would end the session that another process has under
   * this identity, and that one ours (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and
   * Timeout)). Throws UsageError 15.
   */
  async takeIdentity(): Promise<void> {
    const isid = Buffer.from(this.#subject.identity.isid).toString('hex');
    const { targetName } = this.#subject;
    const { initiatorName } = this.#options;
    await this.#lock(
      digestOf(['isid', normalIscsiName(initiatorName), normalIscsiName(targetName), isid]),
      (pid) =>
        `Process ${pid} has a session with the ISID ${isid} that is kept for ${targetName} here: ` +
        'one state directory is a copy of the other. Give this process another; two sessions of ' +
        'one identity end each other',
    );
  }

  /**
   * Takes a LUN; `remote` is the address the session is connected to, where that is known: a
   * portal may be named and then be the same as one that is not. Throws UsageError 15.
   */
  async take(lun: number, remote: PortalAddress | null): Promise<void> {
    await this.takeIdentity();
    if (this.#isOpen) return;
    const all = [...this.#portals, ...(remote === null ? [] : [remote])];
    await this.#takeAt(lun, all);
  }

  /**
   * Takes the unit itself, which targets of other names may have, too: by the names that no other
   * unit has. Throws UsageError 15.
   */
  async takeUnit(
    lun: number,
    { identifiers, serial }: Pick<DiskFacts, 'identifiers' | 'serial'>,
  ): Promise<void> {
    if (this.#isOpen) return;
    const { targetName } = this.#subject;
    for (const name of unitNames(identifiers).filter(isWorldwide)) {
      await this.#lock(
        digestOf(['unit', name, serial]),
        (pid, session) =>
          `LUN ${lun} of ${targetName} is the disk ${name}, which process ${pid} uses already, ` +
          `in session ${session} over another way: two disks of one unit corrupt its data. A ` +
          'daemon makes them paths of one disk if both sessions have multipath auto and the same ' +
          'rights. Use that one, or log it out first; --read-only is allowed, and --shared if a ' +
          'cluster file system coordinates the writers, or if the disks are different ones',
      );
    }
  }

  /** Takes units at a target of another name, which is a path to them. Throws UsageError 15. */
  async takeOther({ targetName, units }: ClaimedTarget, portal: PortalAddress): Promise<void> {
    if (this.#isOpen) return;
    for (const { otherLun } of units) await this.#takeAt(otherLun, [portal], targetName);
  }

  /** A cluster coordinates the writers, or the session only reads. */
  get #isOpen(): boolean {
    return this.#options.readOnly || this.#options.shared === true;
  }

  /** The session is about to use this portal, too; `luns` are its LUNs. Throws UsageError 15. */
  async addPortal(portal: PortalAddress, luns: readonly number[]): Promise<void> {
    this.#portals.push(portal);
    if (this.#isOpen) return;
    try {
      for (const lun of luns) await this.#takeAt(lun, [portal]);
    } catch (error) {
      this.#portals.splice(this.#portals.indexOf(portal), 1);
      throw error;
    }
  }

  async #takeAt(
    lun: number,
    all: readonly PortalAddress[],
    targetName = this.#subject.targetName,
  ): Promise<void> {
    // Two spellings of one name are one target, whichever of them it knows.
    const name = normalIscsiName(targetName);
    const places = new Set(all.map(({ host, port }) => formatPortal({ host, port })));
    for (const place of places) {
      const key = digestOf(['lun', name, place.toLowerCase(), lun]);
      await this.#lock(
        key,
        (pid, session) =>
          `Process ${pid} has LUN ${lun} of ${targetName} already, in session ${session}: two ` +
          'disks of one LUN corrupt its data. Use that one, or log it out first; ' +
          '--read-only is allowed, and --shared if a cluster file system coordinates the writers',
      );
    }
  }

  /** Takes LUNs that this session uses already; `warn` gets the refusal of each that is taken. */
  async takeAll(
    luns: readonly number[],
    remote: PortalAddress | null,
    warn: (message: string) => void,
  ): Promise<void> {
    for (const lun of luns) {
      await this.take(lun, remote).catch((error: unknown) => warn(productError(error).message));
    }
  }

  /** May be called again. */
  async release(): Promise<void> {
    this.#isReleased = true;
    const locks = [...this.#locks.values()];
    this.#locks.clear();
    for (const lock of locks) lock.release();
  }

  async #lock(key: string, words: (pid: string, session: string) => string): Promise<void> {
    if (this.#locks.has(key)) return;
    const lock = ProcessLock.take(key, `${process.pid} ${this.#subject.identity.sessionId}`);
    if (lock === null) {
      const [pid = '', session = ''] = ProcessLock.holderOf(key).split(' ');
      // Of root's lock a user sees only the process.
      const who = /^\d{1,10}$/.test(pid) ? pid : 'unknown';
      const whose = /^[0-9a-f]{16}$/.test(session) ? session : 'unknown';
      throw new UsageError(`${words(who, whose)}.`, {
        exitCode: EXIT_CODES.sessionExists.code,
        code: 'ERR_LUN_IN_USE',
      });
    }
    if (this.#isReleased) lock.release();
    else this.#locks.set(key, lock);
  }
}

/** A registry keeps it from being given twice. */
function isWorldwide(name: string): boolean {
  return /^(?:naa|eui|uuid)\./.test(name);
}

/** A name of a fixed length, for those of sockets are short. */
function digestOf(parts: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
}
