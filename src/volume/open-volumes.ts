import { join } from 'node:path';
import { UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { currentBootId } from '../io/boot-id.js';
import { ProcessLock } from '../io/process-lock.js';
import { systemHost } from './system-host.js';
import { ControlledDaemon } from './volume-daemon.js';
import { VolumeRecordFiles } from './volume-record.js';
import { VolumeSecretFiles } from './volume-secrets.js';
import { Volumes } from './volumes.js';

/** A disk is there within seconds of its login, or its target is away. */
const WAITS = { diskMsMax: 60_000, pollMs: 200 };

export type VolumesPlace = {
  /** What the volumes are for: each has records of its own. */
  readonly kind: 'docker' | 'csi';
  readonly stateDirectory: string;
  /** In memory: secrets go there, and end with the machine. */
  readonly runDirectory: string;
  readonly controlPath: string;
  readonly warn: (message: string) => void;
};

export type OpenVolumes = {
  readonly volumes: Volumes;
  /** Where a front end keeps what it has to know beside them. */
  readonly folder: string;
  readonly bootId: string;
};

/** The volumes of this node, for one process at a time. Throws UsageError 28 for a second one. */
export async function openVolumes(place: VolumesPlace): Promise<OpenVolumes> {
  const folder = join(place.stateDirectory, 'volumes', place.kind);
  // Held until the process ends, however it ends.
  if (ProcessLock.take(folder, String(process.pid)) === null) {
    const holder = ProcessLock.holderOf(folder);
    throw new UsageError(`The volumes in ${folder} are those of process ${holder}; end it first.`, {
      exitCode: EXIT_CODES.busy.code,
      code: 'ERR_VOLUMES_BUSY',
    });
  }
  const bootId = await currentBootId();
  const volumes = await Volumes.open({
    host: systemHost,
    daemon: new ControlledDaemon(place.controlPath),
    records: new VolumeRecordFiles(join(folder, 'records')),
    secrets: new VolumeSecretFiles(join(place.runDirectory, 'volume-secrets', place.kind)),
    waits: WAITS,
    bootId,
    warn: place.warn,
  });
  return { volumes, folder, bootId };
}
