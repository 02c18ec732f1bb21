import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LossRecord } from '../../src/lun/loss-record.js';

const SESSION = '0011223344556677';
let folder = '';
let path = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'losses-'));
  path = join(folder, 'logins', 'session.lost');
});

afterEach(() => rm(folder, { recursive: true }));

function open(sessionId = SESSION, failures: string[] = []): LossRecord {
  return new LossRecord({ path, sessionId, onFailure: (message) => failures.push(message) });
}

describe('a loss that was reported to no client', () => {
  it('the loss is on disk when `changed` returns, for its owner alone, and for the next process', async () => {
    open().changed(3, true);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect([3, 5].map((lun) => open().wasLostBefore(lun))).toEqual([true, false]);
  });

  it('the loss is removed after its report, and one of another LUN stays', async () => {
    const record = open();
    record.changed(3, true);
    record.changed(5, true);
    record.changed(3, false);
    expect([3, 5].map((lun) => open().wasLostBefore(lun))).toEqual([false, true]);
    record.changed(5, false);
    await expect(readFile(path)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('the loss does not count for the next session in the same place', () => {
    open().changed(3, true);
    expect(open('8899aabbccddeeff').wasLostBefore(3)).toBe(false);
  });

  it('the loss is removed with its session', () => {
    const record = open();
    record.changed(3, true);
    record.remove();
    expect(open().wasLostBefore(3)).toBe(false);
  });

  it('a loss of every LUN is assumed, with a warning, if the file is broken', async () => {
    open().changed(3, true);
    await writeFile(path, '{"luns": 3');
    const failures: string[] = [];
    const record = open(SESSION, failures);
    expect([record.wasLostBefore(0), record.wasWrittenBefore(7)]).toEqual([true, true]);
    expect(failures).toEqual([expect.stringMatching(/^what the disks have lost cannot be read/)]);
    record.remove();
    expect(open().wasLostBefore(0)).toBe(false);
  });

  it('the loss stays when the clients are disconnected, and a new one is added', () => {
    const record = open();
    record.changed(3, true);
    record.ends();
    record.changed(3, false);
    record.changed(5, true);
    expect([3, 5].map((lun) => open().wasLostBefore(lun))).toEqual([true, true]);
  });

  it('the loss causes a warning if it cannot be recorded', async () => {
    await writeFile(join(folder, 'logins'), 'a file where a folder has to be');
    const failures: string[] = [];
    open(SESSION, failures).changed(3, true);
    expect(failures).toEqual([
      expect.stringMatching(/^lost writes of LUN 3 cannot be written down/),
    ]);
  });
});

describe('a write in a volatile cache', () => {
  it('the write is on disk when `written` returns, and removed after a flush', async () => {
    const record = open();
    record.written(3);
    expect([open().wasWrittenBefore(3), open().wasLostBefore(3)]).toEqual([true, false]);
    record.flushed(3);
    await expect(readFile(path)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
