import { VolumeError } from './volume-error.js';
import type { VolumeRecord, VolumeRecords } from './volume-record.js';

/** The other volumes of this node: what they have is left alone, whatever a caller says. */
export class VolumeNeighbours {
  readonly #records: VolumeRecords;

  constructor(records: VolumeRecords) {
    this.#records = records;
  }

  /** True if another volume is staged or published at a path. */
  async areAt(path: string, volumeId: string): Promise<boolean> {
    return (await this.#at(path, volumeId)) !== undefined;
  }

  /** Throws VolumeError `refused` if another volume is staged or published there. */
  async requireNoneAt(path: string, volumeId: string): Promise<void> {
    const other = await this.#at(path, volumeId);
    if (other === undefined) return;
    const words = `${path} has the volume ${other.volumeId}`;
    throw new VolumeError('refused', `${words}, which is left alone.`);
  }

  /**
   * Throws VolumeError `refused` if another volume has the device: two volumes of one disk would
   * both write to it, and a container that was shown the device would reach another volume's disk.
   * To be asked when the record with the device is written down: of two that ask at the same time
   * one at least hears of the other.
   */
  async requireNoneHave({ device, volumeId }: VolumeRecord): Promise<void> {
    const others = await this.#others(volumeId);
    const other = others.find(
      (record) => device !== null && record.device === device && record.phase !== 'unstaging',
    );
    if (other === undefined) return;
    const words = `${device} is the disk of the volume ${other.volumeId} on this node`;
    throw new VolumeError('refused', `${words}; unstage that one first.`);
  }

  async #at(path: string, volumeId: string): Promise<VolumeRecord | undefined> {
    const others = await this.#others(volumeId);
    return others.find(
      ({ stagingPath, targets }) =>
        stagingPath === path || targets.some((target) => target.path === path),
    );
  }

  async #others(volumeId: string): Promise<readonly VolumeRecord[]> {
    const { records } = await this.#records.all();
    return records.filter((record) => record.phase !== 'known' && record.volumeId !== volumeId);
  }
}
