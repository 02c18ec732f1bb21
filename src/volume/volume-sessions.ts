import { setTimeout as sleep } from 'node:timers/promises';
import { SerialQueue } from '../base/serial-queue.js';
import { identityMismatch } from '../bridge/disk-identity.js';
import { iscsiNamesEqual, normalIscsiName } from '../iscsi/login/target-name.js';
import type { DeviceView, VolumeDaemon } from './volume-daemon.js';
import { VolumeError } from './volume-error.js';
import { nextVolumePhase } from './volume-phase.js';
import type { RecordedIdentity, VolumeRecord, VolumeRecords } from './volume-record.js';
import type { VolumeSecretFiles } from './volume-secrets.js';
import type { VolumeSecrets } from './volume-spec.js';

export type VolumeWaits = {
  /** How long a disk may take to appear, or to have its new size. */
  readonly diskMsMax: number;
  readonly pollMs: number;
};

/** A disk that serves, and its device. */
export type StagedDisk = { readonly view: DeviceView; readonly device: string };

/**
 * The sessions that volumes share: one for each target. The first volume of a target logs in, the
 * last one logs out, if a volume has logged it in.
 */
export class VolumeSessions {
  readonly #daemon: VolumeDaemon;
  readonly #records: VolumeRecords;
  readonly #secrets: VolumeSecretFiles;
  readonly #waits: VolumeWaits;
  /** Logins and logouts of one target, one after another. */
  readonly #queues = new Map<string, { readonly queue: SerialQueue; users: number }>();

  constructor(options: {
    readonly daemon: VolumeDaemon;
    readonly records: VolumeRecords;
    readonly secrets: VolumeSecretFiles;
    readonly waits: VolumeWaits;
  }) {
    this.#daemon = options.daemon;
    this.#records = options.records;
    this.#secrets = options.secrets;
    this.#waits = options.waits;
  }

  /** Writes down that the volume is being staged, and then logs in. */
  open(
    record: VolumeRecord,
    secrets: VolumeSecrets,
  ): Promise<{ readonly record: VolumeRecord; readonly sessionId: string }> {
    const { targetName, portals, options } = record.spec;
    const [portal = '', ...others] = portals;
    return this.#atTarget(targetName, async () => {
      const session = await this.#daemon.sessionTo(targetName);
      const neighbours = await this.#neighboursOf(record);
      const isOurs = record.ownsSession || neighbours.some(({ ownsSession }) => ownsSession);
      const begun = {
        ...record,
        phase: nextVolumePhase(record.phase, 'stageBegun'),
        ownsSession: session === null || isOurs,
      };
      await this.#records.save(begun);
      const login = {
        ...options,
        ...(others.length === 0 ? {} : { portals: others }),
        ...(await this.#secrets.optionsOf(targetName, secrets)),
      };
      const sessionId = await this.#daemon.login({ targetName, portal, options: login });
      return { record: begun, sessionId };
    });
  }

  /** Waits until the volume's disk serves. */
  async diskOf(sessionId: string, { spec }: VolumeRecord): Promise<StagedDisk> {
    const { diskMsMax, pollMs } = this.#waits;
    const deadlineMs = performance.now() + diskMsMax;
    let hasAsked = false;
    for (;;) {
      const views = await this.#daemon.devicesOf(sessionId);
      const view = views.find(({ lun }) => lun === spec.lun);
      if (view?.lunState === 'serving') return { view, device: deviceOf(view) };
      const isLate = performance.now() >= deadlineMs;
      const where = `LUN ${spec.lun} of ${spec.targetName}`;
      if (view === undefined && hasAsked) {
        const luns = views.map(({ lun }) => lun).join(', ') || 'none';
        throw new VolumeError('notFound', `There is no ${where} that is a disk (LUNs: ${luns}).`);
      }
      if (isLate) {
        const why = view?.lastError ?? 'it does not serve yet';
        throw new VolumeError('unavailable', `${where} is ${view?.lunState ?? 'absent'}: ${why}.`);
      }
      if (view === undefined) {
        // A LUN that was mapped since the session began.
        await this.#daemon.rescan(sessionId);
        hasAsked = true;
      } else {
        await sleep(pollMs);
      }
    }
  }

  /** Throws VolumeError `refused` unless the daemon has the volume's disk as its device now. */
  async requireDisk(record: VolumeRecord): Promise<DeviceView> {
    const view = await this.viewOf(record);
    if (view === null || view.device !== record.device) {
      const words = `The device of the volume was ${record.device}`;
      const now = `and is ${view?.device ?? 'gone'} now: unstage it and stage it again.`;
      throw new VolumeError('refused', `${words}, ${now}`);
    }
    // A client may have logged out and in again: the LUN may be another disk's since.
    const recordPlace = this.#records.placeOf(record.volumeId);
    requireSameDisk(record, view, { recordPlace, mayBeExchanged: false });
    return view;
  }

  /** The disk of a staged volume as the daemon has it now; null: it has none. */
  async viewOf({ spec }: VolumeRecord): Promise<DeviceView | null> {
    const session = await this.#daemon.sessionTo(spec.targetName);
    if (session === null) return null;
    const views = await this.#daemon.devicesOf(session.sessionId);
    return views.find(({ lun }) => lun === spec.lun) ?? null;
  }

  /** Waits until the disk of a staged volume has at least so many bytes; resolves to its size. */
  async grown(record: VolumeRecord, requiredBytes: number): Promise<number> {
    const { diskMsMax, pollMs } = this.#waits;
    const deadlineMs = performance.now() + diskMsMax;
    const session = await this.#daemon.sessionTo(record.spec.targetName);
    if (session !== null) await this.#daemon.rescan(session.sessionId);
    for (;;) {
      const sizeBytes = (await this.viewOf(record))?.sizeBytes ?? 0;
      if (sizeBytes > 0 && sizeBytes >= requiredBytes) return sizeBytes;
      if (performance.now() >= deadlineMs) {
        const words = `The disk has ${sizeBytes} bytes, and ${requiredBytes} are required.`;
        throw new VolumeError('outOfRange', `${words} Enlarge it at the target first.`);
      }
      await sleep(pollMs);
    }
  }

  /** Logs out if no other volume uses the session, and writes down that the volume is gone. */
  release(record: VolumeRecord): Promise<void> {
    const { targetName } = record.spec;
    return this.#atTarget(targetName, async () => {
      const neighbours = await this.#neighboursOf(record);
      if (record.ownsSession && neighbours.length === 0) {
        const session = await this.#daemon.sessionTo(targetName);
        const isOurs = session !== null && !session.persistent;
        const end = isOurs ? await this.#daemon.logout(session.sessionId) : 'loggedOut';
        if (end === 'loggedOut') await this.#secrets.forget(targetName);
      }
      await this.#records.save({
        ...record,
        phase: nextVolumePhase(record.phase, 'unstageDone'),
        ...{ stagingPath: null, ownsSession: false, device: null, targets: [] },
      });
    });
  }

  /** Other volumes of the target that are here. */
  async #neighboursOf(record: VolumeRecord): Promise<readonly VolumeRecord[]> {
    const { records } = await this.#records.all();
    return records.filter(
      ({ volumeId, phase, spec }) =>
        volumeId !== record.volumeId &&
        phase !== 'known' &&
        iscsiNamesEqual(spec.targetName, record.spec.targetName),
    );
  }

  async #atTarget<T>(targetName: string, work: () => Promise<T>): Promise<T> {
    // Two spellings of one name are one session of the daemon.
    const name = normalIscsiName(targetName);
    const place = this.#queues.get(name) ?? { queue: new SerialQueue(), users: 0 };
    this.#queues.set(name, place);
    place.users += 1;
    try {
      return await place.queue.run(work);
    } finally {
      place.users -= 1;
      if (place.users === 0) this.#queues.delete(name);
    }
  }
}

function deviceOf({ device, lun }: DeviceView): string {
  if (device !== null) return device;
  throw new VolumeError(
    'refused',
    `LUN ${lun} has no device: volumes need a daemon that makes kernel devices, without ` +
      '--socket-directory.',
  );
}

/**
 * Throws VolumeError `refused` unless this is the disk that the volume had when it was here first,
 * and the one that its description names. A LUN number that was given to another disk while the
 * volume was away must not hand that disk to the volume's user (CVE-2023-2088).
 */
export function requireSameDisk(
  { spec, volumeId, identity }: VolumeRecord,
  view: DeviceView,
  { recordPlace, mayBeExchanged }: { recordPlace: string; mayBeExchanged: boolean },
): RecordedIdentity {
  const found = identityOf(view);
  const where = `LUN ${spec.lun} of ${spec.targetName}`;
  const hasName = found.identifiers.length > 0 || found.serial !== '';
  if (!hasName && view.identity.unread.length > 0) {
    const words = `The identity of ${where} cannot be read now`;
    throw new VolumeError('unavailable', `${words}, so it is not used; try again.`);
  }
  if (spec.diskId !== null && !isNamed(found, spec.diskId)) {
    const names = [found.serial, ...found.identifiers].filter((name) => name !== '').join(', ');
    const words = `${where} is not the disk ${spec.diskId} of volume ${volumeId}`;
    throw new VolumeError('refused', `${words}: it is ${names || 'without a name'}.`);
  }
  if (identity === null) return found;
  const mismatch = identityMismatch(identity, found, {
    mayBeExchanged,
    // Options come as texts.
    allowUnidentified: String(spec.options['allowUnidentified']) === 'true',
  });
  if (mismatch === null) return found;
  throw new VolumeError(
    'refused',
    `${where} is not the disk that volume ${volumeId} had on this node: ${mismatch}. It is not ` +
      `used. If the volume is to have this disk from now on, remove ${recordPlace}.`,
  );
}

function identityOf({ identity, sizeBytes, blockSizeBytes }: DeviceView): RecordedIdentity {
  const { vendor, product, serial, identifiers, deviceType } = identity;
  const blockCount = Math.floor(sizeBytes / blockSizeBytes);
  return { vendor, product, serial, identifiers, deviceType, blockSizeBytes, blockCount };
}

/** By its serial number, or by an identifier with or without its kind (`naa.6001405…`). */
function isNamed({ serial, identifiers }: RecordedIdentity, name: string): boolean {
  const wanted = name.toLowerCase().replace(/^(0x|naa\.|eui\.)/, '');
  const plain = (text: string) => text.toLowerCase().replace(/^(naa\.|eui\.)/, '');
  return [serial, ...identifiers].some((text) => text !== '' && plain(text) === wanted);
}
