import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { EXIT_CODES } from '../../src/errors/exit-codes.js';
import { AbsentIndexes, absentMemory, forgetAbsent } from '../../src/lun/absent-indexes.js';

/** A kernel whose devices are free but for these. */
const connectUnless = (taken: readonly number[]) => async (index?: number) => {
  if (index !== undefined && taken.includes(index)) {
    throw new UsageError('it is in use', { exitCode: EXIT_CODES.busy.code });
  }
  return index ?? 'chosen by the kernel';
};
const connect = connectUnless([]);

describe('indexes of removed devices', () => {
  it('the kernel chooses an index while no disk is removed', async () => {
    const indexes = new AbsentIndexes();
    expect(await indexes.connectNew(connect)).toBe('chosen by the kernel');
    indexes.removed(3);
    indexes.over(3);
    expect(await indexes.connectNew(connect)).toBe('chosen by the kernel');
  });

  it('another disk gets the lowest index that is neither of a removed disk nor in use', async () => {
    const indexes = new AbsentIndexes();
    for (const index of [0, 1, 31, 32, 33]) indexes.removed(index);
    expect(await indexes.connectNew(connect)).toBe(2);
    const taken = Array.from({ length: 29 }, (_none, at) => at + 2);
    expect(await indexes.connectNew(connectUnless(taken))).toBe(34);
  });

  it('a disk that one worker has removed keeps its index from disks of another worker', async () => {
    const memory = absentMemory(3);
    const [one, other] = [new AbsentIndexes(), new AbsentIndexes()];
    one.share(memory, 0);
    other.share(memory, 2);
    one.removed(0);
    other.removed(1);
    expect(await other.connectNew(connect)).toBe(2);
    expect(await one.connectNew(connect)).toBe(2);
    one.over(0);
    expect(await other.connectNew(connect)).toBe(0);
  });

  it('the indexes of a worker that has ended are free again, and those of others are not', async () => {
    const memory = absentMemory(2);
    const [one, other] = [new AbsentIndexes(), new AbsentIndexes()];
    one.share(memory, 0);
    other.share(memory, 1);
    one.removed(0);
    other.removed(1);
    forgetAbsent(memory, 0);
    expect(await other.connectNew(connect)).toBe(0);
    forgetAbsent(memory, 1);
    expect(await other.connectNew(connect)).toBe('chosen by the kernel');
  });
});
