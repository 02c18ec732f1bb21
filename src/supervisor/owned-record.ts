import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../base/errors.js';
import { stateDirectoryOf } from '../config/initiator-name.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { currentBootId } from '../io/boot-id.js';
import { ProcessLock } from '../io/process-lock.js';
import type { SessionIdentity } from '../iscsi/session/session-config.js';
import { devicesOf } from '../lun/device-identifier.js';
import type { LossRecord } from '../lun/loss-record.js';
import { begunRecord, identityOf, leftBehind, stillLeft } from './record-identity.js';
import { waitingDisks } from './session-exports.js';
import type { SessionRecord, SessionSubject } from './session-record.js';
import { SessionRecords } from './session-records.js';

/** How long another process may hold a lock to see whether a record still has an owner. */
const LOCK_RETRY_MS = 200;

export type OwnedRecordOptions = {
  /** Absent: that of the environment. */
  readonly stateDirectory?: string | undefined;
  readonly onWarning?: (message: string, sessionId: string) => void;
};

/** How a session with a record of its own has ended. */
export type OwnedRecordEnd = {
  /** The target has seen the logout: nothing of the session is at work there. */
  readonly isLoggedOut: boolean;
  /** Its disks have been of use to a client in this process. */
  readonly wasOpen: boolean;
};

/**
 * The record of a session that one process has for itself, as `attach` and `serve` do: one living
 * process at a time has it. It is written before the identity is used, so that a process that is
 * killed and started again is the same session with the same devices: the target then ends what the
 * one before has left there (RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout)), late
 * writes among it.
 */
export class OwnedRecord {
  /** As it was when the session began; the disks are those whose devices wait for us. */
  readonly record: SessionRecord;
  /** What a process before this one left in this boot of the machine. */
  readonly left: SessionRecord | null;
  readonly losses: LossRecord;
  readonly #records: SessionRecords;
  readonly #lock: ProcessLock;
  readonly #warn: (message: string) => void;
  /** Nothing was written down of a session before this one. */
  readonly #isFirst: boolean;
  /** What was written down could not be read. */
  readonly #wasBroken: boolean;
  #ended: Promise<void> | null = null;

  private constructor(parts: {
    readonly records: SessionRecords;
    readonly lock: ProcessLock;
    readonly record: SessionRecord;
    readonly known: SessionRecord | null;
    readonly wasBroken: boolean;
    readonly warn: (message: string) => void;
  }) {
    this.#records = parts.records;
    this.#lock = parts.lock;
    this.record = parts.record;
    this.left = leftBehind(parts.known, parts.record.bootId);
    this.#isFirst = parts.known === null;
    this.#wasBroken = parts.wasBroken;
    this.#warn = parts.warn;
    this.losses = parts.records.lossesOf(parts.record, parts.warn);
  }

  /**
   * Throws UsageError 15 when a living process has this session, UsageError 1 when there is no
   * record and none can be written.
   */
  static async open(
    subject: SessionSubject,
    { stateDirectory = stateDirectoryOf(process.env), onWarning }: OwnedRecordOptions = {},
  ): Promise<OwnedRecord> {
    const isServed = subject.socketPath !== undefined;
    const records = new SessionRecords(stateDirectory, isServed ? 'served' : 'sessions');
    const lock = await lockOf(records.pathOf(subject));
    if (lock === null) throw await ownedByAnother(records, subject);
    try {
      const bootId = await currentBootId();
      if (isServed) await records.forgetOtherBoots(bootId, subject);
      const warnings: string[] = [];
      const path = records.pathOf(subject);
      let wasBroken = false;
      const known = await records.find(subject, (broken) => {
        wasBroken = true;
        const now = broken.path === path ? '' : ` and is now ${broken.path}`;
        warnings.push(
          `the identity record ${path} is broken${now}: the target does not end what the process ` +
            `before has left there (${broken.reason})`,
        );
      });
      const begun = begunRecord(subject, known, { bootId, persistent: false, options: {} });
      const record = await withWaitingDisks(begun);
      await records.saveOrKeep(record, (message) => warnings.push(message));
      const warn = (message: string) => onWarning?.(message, record.sessionId);
      for (const message of warnings) warn(message);
      return new OwnedRecord({ records, lock, record, known, wasBroken, warn });
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  get identity(): SessionIdentity {
    return identityOf(this.record);
  }

  /** A process before this one had the session, and may have left commands at the target. */
  get mayHaveGhosts(): boolean {
    return !this.#isFirst || this.#wasBroken;
  }

  /** Throws UsageError 1 when the system does not take it. */
  save(record: SessionRecord): Promise<void> {
    return this.#records.saveOrKeep(record, this.#warn);
  }

  /** Makes the session; of one that cannot be made nothing stays. */
  async makeSession<T>(make: () => T): Promise<T> {
    try {
      return make();
    } catch (error) {
      await this.end(this.record, { isLoggedOut: this.#isFirst, wasOpen: false });
      throw error;
    }
  }

  /**
   * The session has ended; `record` is its last one. Devices that still exist keep it for the next
   * process, and so do clients of a socket if a loss has not been reported to them or if their
   * acknowledged writes could not be flushed. A session whose end has not reached the target may
   * still have commands there: the next session takes its place. A repeated call changes nothing.
   */
  end(record: SessionRecord, how: OwnedRecordEnd): Promise<void> {
    this.#ended ??= this.#end(record, how);
    return this.#ended;
  }

  async #end(record: SessionRecord, { isLoggedOut, wasOpen }: OwnedRecordEnd): Promise<void> {
    try {
      const hasDevices = (await devicesOf(record.sessionId)).length > 0;
      const hasClients = record.socketPath !== undefined && !this.losses.isEmpty;
      if (!hasDevices && !hasClients) {
        this.losses.remove();
        await this.#records.loggedOut(record, { hasGhosts: !isLoggedOut });
      } else if (!wasOpen && this.left !== null) {
        // This process did not use it: the next one takes over from the process that left it.
        await this.#records.save(stillLeft(record, this.left));
      }
    } catch (error) {
      const isSystems = error instanceof UsageError && error.code === 'ERR_STATE_RECORD';
      if (!isSystems) throw error;
      this.#warn(error.message);
    }
    this.#lock.release();
  }
}

/** Of the disks that were left, those whose devices the kernel still has. */
async function withWaitingDisks(record: SessionRecord): Promise<SessionRecord> {
  const disks = await waitingDisks({ kind: 'devices' }, record.sessionId, record.disks);
  return { ...record, disks, portalGroupTag: disks.length > 0 ? record.portalGroupTag : undefined };
}

/** Null when a living process has the record. */
async function lockOf(path: string): Promise<ProcessLock | null> {
  const lock = ProcessLock.take(path, String(process.pid));
  if (lock !== null) return lock;
  await sleep(LOCK_RETRY_MS);
  return ProcessLock.take(path, String(process.pid));
}

async function ownedByAnother(
  records: SessionRecords,
  subject: SessionSubject,
): Promise<UsageError> {
  const holder = ProcessLock.holderOf(records.pathOf(subject));
  const record = await records.peek(subject);
  // It may be just gone.
  const who = /^\d{1,10}$/.test(holder) ? `process ${holder}` : 'another process';
  const session = record === null ? '' : ` as session ${record.sessionId}`;
  return new UsageError(
    `${who} is already attached to these LUNs of ${subject.targetName}${session}; stop it first, ` +
      'or use its device',
    { exitCode: EXIT_CODES.sessionExists.code, code: 'ERR_SESSION_EXISTS' },
  );
}
