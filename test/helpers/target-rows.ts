/**
 * What has to hold for every real target, in the same words: the rows of docs/TARGETS.md. A target
 * takes part with a function that starts it.
 */
import { stat, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Workplace } from './command-process.js';
import { errorsIn, FIO_BYTES, fioVerifyPaced, fioVerifySizes } from './fio.js';
import { run, ServedDisk } from './served-disk.js';
import type { TgtChap } from './tgt.js';

const MIB = 1 << 20;
export const DISK_MIB = 64;
const DISK_BYTES = DISK_MIB * MIB;
/** The machine of a test may be busy, or an emulated one; nothing here is about speed. */
const SLOW = process.env['ISCSI_NBD_VM'] === undefined ? 300_000 : 1_200_000;

/** A real target with one disk of `DISK_MIB`. */
export interface RowTarget {
  /** `address:port`. */
  readonly portal: string;
  readonly iqn: string;
  /** Of the disk; other LUNs may be there, too. */
  readonly lun: number;
  /** Without a LUN. */
  readonly url: string;
  /** What holds the bytes of the disk. */
  readonly file: string;
  /** Ends the target as `how` says: every connection breaks, what it acknowledged stays. */
  stop(how: string): Promise<void>;
  /** Starts it again, as it was. */
  start(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export type RowOptions = {
  /** Required of the initiator. */
  readonly chap?: TgtChap;
  /** Header and data digests: allowed by the target, and required by the initiator. */
  readonly digests: boolean;
};

export type RowStart = (options: RowOptions) => Promise<RowTarget>;

const ONE_WAY: TgtChap = { user: 'alice', password: 'initiator-secret' };
const MUTUAL: TgtChap = { ...ONE_WAY, targetUser: 'bob', targetPassword: 'targets-secret' };
const CHAP_WAYS: readonly { readonly name: string; readonly chap?: TgtChap }[] = [
  { name: 'no CHAP' },
  { name: 'one-way CHAP', chap: ONE_WAY },
  { name: 'mutual CHAP', chap: MUTUAL },
];
const WAYS: readonly (RowOptions & { readonly name: string })[] = CHAP_WAYS.flatMap((way) => [
  { ...way, name: `${way.name} and no digest`, digests: false },
  { ...way, name: `${way.name} and both digests`, digests: true },
]);

/** The flags that ask for what the target requires; the secrets go to files of `place`. */
async function flagsOf({ chap, digests }: RowOptions, place: Workplace): Promise<string[]> {
  const flags = ['--reconnect-interval', '1', '--initiator-name', 'iqn.2001-04.com.example:rows'];
  if (digests) flags.push('--header-digest', 'CRC32C', '--data-digest', 'CRC32C');
  if (chap === undefined) return flags;
  const secret = async (name: string, text: string) => {
    await writeFile(place.file(name), text, { mode: 0o600 });
    return place.file(name);
  };
  flags.push('--chap-user', chap.user);
  flags.push('--chap-secret-file', await secret('ours', chap.password));
  if (chap.targetUser === undefined || chap.targetPassword === undefined) return flags;
  flags.push('--target-chap-user', chap.targetUser);
  flags.push('--target-chap-secret-file', await secret('theirs', chap.targetPassword));
  return flags;
}

/**
 * The tests of a target; `ends` are the ways in which it can be ended under load. In the VM, where
 * one such target can be there at a time and each process takes seconds to start, the digests are
 * verified in the restarts only.
 */
export function describeRows(
  target: string,
  startTarget: RowStart,
  ends: readonly string[],
  { isInVm = false } = {},
): void {
  const restarts = ends.flatMap((end) =>
    WAYS.filter((way) => way.digests).map((way) => ({
      ...way,
      end,
      name: `${way.name}, ended by ${end}`,
    })),
  );
  describe(target, { timeout: SLOW }, () => {
    it('discover, luns, inquiry, capacity and ping say what is there', async () => {
      await using there = await startTarget({ digests: false });
      await saysWhatIsThere(there);
    });

    const ways = isInVm ? WAYS.filter((way) => !way.digests) : WAYS;
    it.each(titled(ways))('fio verifies what it wrote with %s', async (_name, way) => {
      await using there = await startTarget(way);
      await using place = await Workplace.make();
      await using served = await serveRow(there, way, place);
      expect(errorsIn(await fioVerifySizes(served.uri))).toEqual(['0']);
      const copy = place.file('copy.img');
      await run('nbdcopy', ['--flush', served.uri, copy]);
      await run('cmp', ['-n', String(FIO_BYTES), copy, there.file]);
      expect(served.events.filter((event) => event.to === 'reconnecting')).toEqual([]);
    });

    const test = isInVm ? it : it.concurrent;
    test.each(titled(restarts))('a restart under load is a pause with %s', async (_name, way) => {
      await using there = await startTarget(way);
      await using place = await Workplace.make();
      await using served = await serveRow(there, way, place);
      const fio = fioVerifyPaced(served.uri);
      await untilWritten(there.file, MIB / 2);
      await there.stop(way.end);
      await served.heard((event) => event.to === 'reconnecting');
      await there.start();
      await served.heard((event) => event.event === 'deviceReleased');
      expect(errorsIn(await fio)).toEqual(['0']);
      expect(served.events.filter((event) => event.event === 'deviceHeld')).toHaveLength(1);
      expect(served.events.some((event) => event.event === 'deviceRemoved')).toBe(false);
    });
  });
}

/** Rows of `it.each` whose first cell, for %s of the title, is the name. */
function titled<T extends { readonly name: string }>(ways: readonly T[]): [string, T][] {
  return ways.map((way) => [way.name, way]);
}

async function serveRow(there: RowTarget, way: RowOptions, place: Workplace) {
  return ServedDisk.start(`${there.url}/${there.lun}`, ...(await flagsOf(way, place)));
}

/** Waits until so many bytes of a sparse file were written. */
async function untilWritten(file: string, bytes: number): Promise<void> {
  while ((await stat(file)).blocks * 512 < bytes) await sleep(20);
}

/** The commands that only ask, one after the other. */
async function saysWhatIsThere({ portal, iqn, url, lun }: RowTarget): Promise<void> {
  await using place = await Workplace.make();
  const said = async (...args: string[]) => {
    const { code, out, err } = await place.run(args);
    expect({ args, code, err }).toEqual({ args, code: 0, err: '' });
    return out;
  };
  const json = async (...args: string[]) => JSON.parse(await said(...args, '--json'));
  expect((await said('discover', portal)).trimEnd().split('\n')).toEqual([
    expect.stringMatching(/^TARGET +PORTAL +GROUP +URL$/),
    expect.stringMatching(new RegExp(`^${iqn} .* iscsi://${portal}/${iqn}$`)),
  ]);
  const luns: { lun: number }[] = await json('luns', url);
  expect(luns).toContainEqual(expect.objectContaining({ lun, sizeBytes: DISK_BYTES }));
  expect(await json('inquiry', `${url}/${lun}`)).toMatchObject({ deviceType: 0 });
  expect(await json('capacity', `${url}/${lun}`)).toMatchObject({ sizeBytes: DISK_BYTES });
  const { count, maxMs } = await json('ping', url, '--count', '3');
  expect({ count, hasRoundTrips: maxMs > 0 }).toEqual({ count: 3, hasRoundTrips: true });
}
