import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type VolumeRecord, VolumeRecordFiles } from '../../src/volume/volume-record.js';
import { specOf } from './volume-world.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-volumes-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function record(volumeId: string, phase: VolumeRecord['phase'] = 'staged'): VolumeRecord {
  return {
    ...{ version: 1, volumeId, spec: specOf(1), phase, bootId: 'boot' },
    ...{ stagingPath: '/staging', ownsSession: true, device: '/dev/nbd0', identity: null },
    targets: [{ path: '/pods/1', readOnly: true }],
  };
}

describe('records of volumes', () => {
  it('a record is written with mode 0600 and read as it was', async () => {
    const records = new VolumeRecordFiles(folder);
    const written = record('pvc-../../etc/passwd\n');
    await records.save(written);
    const [name = '', ...others] = readdirSync(folder);
    expect(others).toEqual([]);
    expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
    expect(await records.find(written.volumeId)).toEqual(written);
    expect(await records.all()).toEqual({ records: [written], broken: [] });
    await records.remove(written.volumeId);
    expect(await records.find(written.volumeId)).toBeNull();
  });

  it('a record that could not be read again is not written', async () => {
    const records = new VolumeRecordFiles(folder);
    await records.save(record('v'));
    const targets = [{ path: 'x'.repeat(1 << 20), readOnly: true }];
    await expect(records.save({ ...record('v'), targets })).rejects.toThrow(/malformed/);
    expect(await records.find('v')).toEqual(record('v'));
  });

  it('a malformed record, and one of a newer version, is set aside and does not hide others', async () => {
    const records = new VolumeRecordFiles(folder);
    await records.save(record('good'));
    await records.save(record('torn'));
    await records.save(record('newer'));
    writeFileSync(records.placeOf('torn'), '{"version":1,"volumeId":"to');
    writeFileSync(records.placeOf('newer'), JSON.stringify({ ...record('newer'), version: 2 }));
    await expect(records.find('torn')).rejects.toThrow(/cannot be read or written/);
    const { records: found, broken } = await records.all();
    expect(found.map(({ volumeId }) => volumeId)).toEqual(['good']);
    expect(broken).toHaveLength(2);
    expect(readdirSync(folder)).toContain(`${basename(records.placeOf('torn'))}.broken`);
  });
});
