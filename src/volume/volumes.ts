import { codeOf, ProductError } from '../base/errors.js';
import { growFileSystem } from './file-system.js';
import { mountAt } from './mount-table.js';
import type { DeviceView, VolumeDaemon } from './volume-daemon.js';
import { VolumeError } from './volume-error.js';
import type { FileSystemStatistics, VolumeHost } from './volume-host.js';
import { bindDevice, bindFolder, mountDisk, unbind, unmountAll } from './volume-mounts.js';
import { VolumeNeighbours } from './volume-neighbours.js';
import { nextVolumePhase } from './volume-phase.js';
import { TARGETS_MAX, type VolumeRecord, type VolumeRecords } from './volume-record.js';
import type { VolumeSecretFiles } from './volume-secrets.js';
import { requireSameDisk, VolumeSessions, type VolumeWaits } from './volume-sessions.js';
import { isSameDisk, isSameVolume, type VolumeSecrets, type VolumeSpec } from './volume-spec.js';

export type StageRequest = {
  readonly volumeId: string;
  readonly spec: VolumeSpec;
  readonly secrets: VolumeSecrets;
  /** Where its file system is mounted; null for a block device. */
  readonly stagingPath: string | null;
};

export type PublishRequest = {
  readonly volumeId: string;
  readonly targetPath: string;
  readonly readOnly: boolean;
  /** No other path of this node may have the volume. */
  readonly isExclusive: boolean;
};

/** If the volume can be used, and in words why not. */
export type VolumeCondition = { readonly isAbnormal: boolean; readonly message: string };

export type VolumeReport = {
  readonly sizeBytes: number;
  /** Null for a block device. */
  readonly fileSystem: FileSystemStatistics | null;
  readonly condition: VolumeCondition;
};

export type VolumesOptions = {
  readonly host: VolumeHost;
  readonly daemon: VolumeDaemon;
  readonly records: VolumeRecords;
  readonly secrets: VolumeSecretFiles;
  readonly waits: VolumeWaits;
  readonly bootId: string;
  /** What a person should know and no caller hears. */
  readonly warn: (message: string) => void;
};

/**
 * The volumes of this node. Each call may be repeated, in any order, also after a kill at any
 * point: the records, the mounts and the sessions of the daemon are brought to the requested state.
 */
export class Volumes {
  readonly #options: VolumesOptions;
  readonly #host: VolumeHost;
  readonly #records: VolumeRecords;
  readonly #sessions: VolumeSessions;
  readonly #neighbours: VolumeNeighbours;
  /** Volumes, and paths, with an operation under way. */
  readonly #busy = new Set<string>();

  private constructor(options: VolumesOptions) {
    this.#options = options;
    this.#host = options.host;
    this.#records = options.records;
    this.#sessions = new VolumeSessions(options);
    this.#neighbours = new VolumeNeighbours(options.records);
  }

  /** Brings the records in line with what is mounted, and takes down what was interrupted. */
  static async open(options: VolumesOptions): Promise<Volumes> {
    const volumes = new Volumes(options);
    await volumes.#reconcile();
    return volumes;
  }

  /** The volumes this node has or has had. */
  async records(): Promise<readonly VolumeRecord[]> {
    return (await this.#records.all()).records;
  }

  /** Logs in, waits for the disk, makes its file system if it is blank, and mounts it. */
  stage(request: StageRequest): Promise<void> {
    return this.#alone(request.volumeId, async () => {
      const stagingPath = await this.#stagingPathOf(request);
      let known = await this.#records.find(request.volumeId);
      if (known?.phase === 'unstaging') {
        await this.#takeDown(known);
        known = await this.#records.find(request.volumeId);
      }
      if (known !== null && known.phase !== 'known') requireSame(known, request.spec, stagingPath);
      try {
        await this.#stage(this.#beginning(request, known, stagingPath), request.secrets);
      } catch (error) {
        if (known?.phase !== 'staged') await this.#rollBack(request.volumeId);
        throw error;
      }
    });
  }

  /** Shows a staged volume at a path of a container. */
  publish(request: PublishRequest): Promise<void> {
    const { volumeId, readOnly } = request;
    return this.#alone(volumeId, async () => {
      const record = await this.#staged(volumeId);
      const path = await this.#host.resolvePath(request.targetPath);
      await this.#neighbours.requireNoneAt(path, volumeId);
      if (path === record.stagingPath) {
        throw new VolumeError('invalid', `${path} is where the volume is staged.`);
      }
      const others = record.targets.filter((target) => target.path !== path);
      const before = record.targets.find((target) => target.path === path);
      if (before !== undefined && before.readOnly !== readOnly) {
        throw new VolumeError('exists', `${path} has the volume ${rights(before)} already.`);
      }
      if (request.isExclusive && others.length > 0) {
        const words = `The volume is for one user, and is published at ${others[0]?.path}`;
        throw new VolumeError('refused', `${words}; unpublish it there first.`);
      }
      if (others.length >= TARGETS_MAX) {
        throw new VolumeError('refused', `The volume has ${TARGETS_MAX} users already.`);
      }
      await this.#records.save({ ...record, targets: [...others, { path, readOnly }] });
      try {
        await this.#only(`path ${path}`, () => this.#bind(record, path, readOnly));
      } catch (error) {
        if (before === undefined) await this.#unpublish(record, path, volumeId).catch(this.#tell);
        throw error;
      }
    });
  }

  /** Unmounts a volume from a path; a path that does not have it is fine. */
  unpublish(volumeId: string, targetPath: string): Promise<void> {
    return this.#alone(volumeId, async () => {
      const path = await this.#host.resolvePath(targetPath);
      await this.#unpublish(await this.#records.find(volumeId), path, volumeId);
    });
  }

  /** Unmounts and logs out; a volume that is not here is fine. */
  unstage(volumeId: string, stagingPath: string | null): Promise<void> {
    return this.#alone(volumeId, async () => {
      const record = await this.#records.find(volumeId);
      if (record !== null && record.phase !== 'known') return await this.#takeDown(record);
      if (stagingPath === null) return;
      const path = await this.#host.resolvePath(stagingPath);
      const isShared = await this.#neighbours.areAt(path, volumeId);
      await unmountAll(this.#host, path, { device: null, isShared });
    });
  }

  /** Makes the volume as large as its disk, which has to have `requiredBytes`; gives its size. */
  expand(volumeId: string, requiredBytes: number): Promise<number> {
    return this.#alone(volumeId, async () => {
      const record = await this.#staged(volumeId);
      const { device, stagingPath, spec } = record;
      const sizeBytes = await this.#sessions.grown(record, requiredBytes);
      await this.#sessions.requireDisk(record);
      if (spec.fsType === null || device === null || stagingPath === null) return sizeBytes;
      await growFileSystem(this.#host, spec.fsType, device, stagingPath);
      return sizeBytes;
    });
  }

  /** What a volume has at a path where it is staged or published. */
  async report(volumeId: string, path: string): Promise<VolumeReport> {
    const record = await this.#records.find(volumeId);
    const place = await this.#host.resolvePath(path);
    const isStaging = record?.stagingPath === place;
    const isTarget = record?.targets.some((target) => target.path === place) ?? false;
    const isThere = mountAt(await this.#host.mounts(), place) !== null;
    if (record === null || !isThere || !(isStaging || isTarget)) {
      throw new VolumeError('notFound', `${place} does not have the volume ${volumeId}.`);
    }
    const { view, condition } = await this.#look(record);
    const isBlock = record.spec.fsType === null;
    const fileSystem = isBlock ? null : await this.#host.statistics(place);
    const sizeBytes = view?.sizeBytes ?? fileSystem?.totalBytes ?? (await this.#sizeOf(record));
    return { sizeBytes, fileSystem, condition };
  }

  /** Forgets a volume that is not staged, and which disk it was. */
  forget(volumeId: string): Promise<void> {
    return this.#alone(volumeId, async () => {
      const record = await this.#records.find(volumeId);
      if (record === null) return;
      if (record.phase !== 'known') {
        throw new VolumeError('refused', `The volume ${volumeId} is in use on this node.`);
      }
      await this.#records.remove(volumeId);
    });
  }

  async #stagingPathOf({ spec, stagingPath }: StageRequest): Promise<string | null> {
    if (spec.fsType === null) return null;
    if (stagingPath !== null) return await this.#host.resolvePath(stagingPath);
    throw new VolumeError('invalid', 'A volume with a file system needs a path to mount it at.');
  }

  #beginning(
    { volumeId, spec }: StageRequest,
    known: VolumeRecord | null,
    stagingPath: string | null,
  ): VolumeRecord {
    const isSamePlace = known !== null && isSameDisk(known.spec, spec);
    return {
      ...{ version: 1, volumeId, spec, stagingPath, bootId: this.#options.bootId },
      phase: known?.phase ?? 'known',
      ownsSession: known?.ownsSession ?? false,
      device: known?.device ?? null,
      // Another LUN by the operator's own word is another disk.
      identity: isSamePlace ? known.identity : null,
      targets: known?.targets ?? [],
    };
  }

  async #stage(beginning: VolumeRecord, secrets: VolumeSecrets): Promise<void> {
    const { record, sessionId } = await this.#sessions.open(beginning, secrets);
    const { volumeId, spec, stagingPath } = record;
    const { view, device } = await this.#sessions.diskOf(sessionId, record);
    const recordPlace = this.#records.placeOf(volumeId);
    const identity = requireSameDisk(record, view, { recordPlace, mayBeExchanged: true });
    const seen = { ...record, device, identity };
    // Which disk it is stands there before anything is done to it.
    await this.#records.save(seen);
    await this.#neighbours.requireNoneHave(seen);
    const isReadOnly = spec.readOnly || view.readOnly;
    if (stagingPath !== null) {
      await this.#neighbours.requireNoneAt(stagingPath, volumeId);
      const mounting = { spec, device, path: stagingPath, isReadOnly };
      await this.#only(`path ${stagingPath}`, () => mountDisk(this.#host, mounting));
    } else if (seen.phase !== 'staged' && !(await this.#host.isFree(device))) {
      throw new VolumeError('refused', `${device} is in use: by a mount, a mapper or a program.`);
    }
    await this.#records.save({ ...seen, phase: nextVolumePhase(seen.phase, 'stageDone') });
  }

  async #bind(record: VolumeRecord, to: string, readOnly: boolean): Promise<void> {
    const { device, stagingPath } = record;
    if (device === null) throw new VolumeError('refused', 'The volume has no device.');
    if (stagingPath !== null) {
      await bindFolder(this.#host, { device, from: stagingPath, to, readOnly });
      return;
    }
    const view = await this.#sessions.requireDisk(record);
    if (readOnly && !view.readOnly) {
      const words = 'A block device is read-only for all its users or for none';
      throw new VolumeError('refused', `${words}; write-protect the LUN, or use a file system.`);
    }
    await bindDevice(this.#host, { device, to });
  }

  async #unpublish(record: VolumeRecord | null, path: string, volumeId: string): Promise<void> {
    const isShared = await this.#neighbours.areAt(path, volumeId);
    await unbind(this.#host, path, { device: record?.device ?? null, isShared });
    if (record === null || record.phase === 'known') return;
    const targets = record.targets.filter((target) => target.path !== path);
    await this.#records.save({ ...record, targets });
  }

  /** Unmounts, logs out, and writes down each step before it. */
  async #takeDown(record: VolumeRecord): Promise<void> {
    const mounts = await this.#host.mounts();
    const user = record.targets.find(({ path }) => mountAt(mounts, path) !== null);
    if (user !== undefined) {
      const words = `The volume ${record.volumeId} is published at ${user.path}`;
      throw new VolumeError('refused', `${words}; unpublish it there first.`);
    }
    const leaving = { ...record, phase: nextVolumePhase(record.phase, 'unstageBegun') };
    await this.#records.save(leaving);
    const { device, stagingPath, volumeId } = record;
    if (stagingPath !== null) {
      const isShared = await this.#neighbours.areAt(stagingPath, volumeId);
      await unmountAll(this.#host, stagingPath, { device, isShared });
    }
    await this.#sessions.release(leaving);
  }

  /** Nothing is left of a stage that failed; the caller hears why it failed. */
  async #rollBack(volumeId: string): Promise<void> {
    try {
      const record = await this.#records.find(volumeId);
      if (record !== null && record.phase !== 'known') await this.#takeDown(record);
    } catch (error) {
      this.#tell(error);
    }
  }

  async #staged(volumeId: string): Promise<VolumeRecord> {
    const record = await this.#records.find(volumeId);
    if (record === null) {
      throw new VolumeError('notFound', `This node does not have the volume ${volumeId}.`);
    }
    if (record.phase === 'staged') return record;
    throw new VolumeError('refused', `The volume ${volumeId} is not staged on this node.`);
  }

  async #look(
    record: VolumeRecord,
  ): Promise<{ readonly view: DeviceView | null; readonly condition: VolumeCondition }> {
    try {
      const view = await this.#sessions.viewOf(record);
      return { view, condition: conditionOf(view, record.device) };
    } catch (error) {
      if (!(error instanceof ProductError)) throw error;
      return { view: null, condition: { isAbnormal: true, message: error.message } };
    }
  }

  async #sizeOf({ device }: VolumeRecord): Promise<number> {
    return device === null ? 0 : await this.#host.sizeOf(device);
  }

  async #reconcile(): Promise<void> {
    const { records, broken } = await this.#records.all();
    for (const words of broken) this.#options.warn(`a volume record is set aside: ${words}`);
    const mounts = await this.#host.mounts();
    for (const record of records) {
      if (record.phase === 'known') continue;
      const isMounted = (path: string) => mountAt(mounts, path) !== null;
      const targets = record.targets.filter(({ path }) => isMounted(path));
      const current = { ...record, targets };
      if (record.bootId !== this.#options.bootId) {
        // Mounts and sessions ended with the machine.
        const phase = nextVolumePhase(record.phase, 'rebooted');
        const gone = { stagingPath: null, ownsSession: false, device: null, targets: [] };
        await this.#records.save({ ...record, phase, ...gone });
        continue;
      }
      const { stagingPath } = record;
      const isWhole = record.phase === 'staged' && (stagingPath === null || isMounted(stagingPath));
      if (!isWhole) await this.#takeDown(current).catch(this.#tell);
      else if (targets.length !== record.targets.length) await this.#records.save(current);
    }
  }

  #alone<T>(volumeId: string, work: () => Promise<T>): Promise<T> {
    return this.#only(`volume ${volumeId}`, work);
  }

  async #only<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(what)) {
      throw new VolumeError('busy', `Another operation on ${what} is under way.`);
    }
    this.#busy.add(what);
    try {
      return await work();
    } finally {
      this.#busy.delete(what);
    }
  }

  readonly #tell = (error: unknown): void => {
    const words = error instanceof Error ? error.message : codeOf(error);
    this.#options.warn(`a volume is not taken down yet: ${words}`);
  };
}

function requireSame(known: VolumeRecord, spec: VolumeSpec, stagingPath: string | null): void {
  const { volumeId, spec: before } = known;
  if (!isSameVolume(before, spec)) {
    const words = `Volume ${volumeId} is LUN ${before.lun} of ${before.targetName} here`;
    throw new VolumeError('exists', `${words} (${before.fsType ?? 'a block device'}) already.`);
  }
  if (known.stagingPath !== stagingPath) {
    const words = `Volume ${volumeId} is staged at ${known.stagingPath} already`;
    throw new VolumeError('exists', `${words}; unstage it first.`);
  }
}

function rights({ readOnly }: { readonly readOnly: boolean }): string {
  return readOnly ? 'read-only' : 'to be written';
}

function conditionOf(view: DeviceView | null, device: string | null): VolumeCondition {
  if (view === null) {
    return { isAbnormal: true, message: 'The daemon has no session with this disk any more.' };
  }
  const { lunState, lastError, removalInSeconds } = view;
  if (lunState === 'serving' || lunState === 'checking') {
    const isOther = view.device !== device;
    const message = isOther
      ? `The disk is ${view.device} now; stage it again.`
      : 'The disk serves.';
    return { isAbnormal: isOther, message };
  }
  const until = removalInSeconds === null ? '' : ` for ${removalInSeconds} s more`;
  const held = lunState === 'away' ? `; its requests wait${until}` : '';
  const why = lastError === null ? '' : `: ${lastError}`;
  return { isAbnormal: true, message: `The disk is ${lunState}${held}${why}.` };
}
