import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LineSplitter } from '../../src/base/line-splitter.js';
import { Semaphore } from '../../src/base/semaphore.js';
import { StateLock } from '../../src/daemon/state-lock.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';
import { requireSameOptions, resolveLogin } from '../../src/supervisor/resolved-login.js';
import type { SessionRecord } from '../../src/supervisor/session-record.js';
import { SessionRecords } from '../../src/supervisor/session-records.js';
import { diskFacts } from '../helpers/block-client.js';

const TARGET = 'iqn.2001-04.com.example:disk1';
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'daemon-state-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

function record(change: Partial<SessionRecord> = {}): SessionRecord {
  return {
    version: 2,
    sessionId: '0123456789abcdef',
    isid: '800123456789',
    persistent: true,
    active: true,
    bootId: 'boot',
    initiatorName: 'iqn.2001-04.com.example:me',
    targetName: TARGET,
    sessionType: 'data',
    portal: { host: '192.0.2.1', port: 3260 },
    options: { removalLatencySeconds: 'never' },
    disks: [],
    ...change,
  };
}

describe('LineSplitter', () => {
  const lines = (bytesMax: number, ...chunks: string[]) => {
    const splitter = new LineSplitter(bytesMax);
    return chunks.flatMap((chunk) => splitter.push(Buffer.from(chunk)));
  };

  it('lines are whole, however the bytes arrive', () => {
    expect(lines(10, 'a\nbc\n', 'd', 'e', '\n', '\n')).toEqual(['a', 'bc', 'de', '']);
  });

  it('lines may be as long as the bound and no longer', () => {
    expect(lines(4, 'abcd\n')).toEqual(['abcd']);
    expect(lines(4, 'abcde\n')).toEqual([null]);
    expect(lines(4, 'abcd', 'e')).toEqual([null]);
    expect(lines(4, 'a\nabcde')).toEqual(['a', null]);
  });
});

describe('SessionRecords', () => {
  it('a record is loaded as it was saved, and only its owner can read it', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    expect((await records.load()).records).toEqual([record()]);
    const [name = ''] = readdirSync(join(directory, 'logins'));
    expect(statSync(join(directory, 'logins', name)).mode & 0o777).toBe(0o600);
  });

  it('a record keeps the field of a LUN, and is read if an older version wrote less of its facts', async () => {
    const records = new SessionRecords(directory);
    const { commandQueuing: _queuing, notes: _notes, ...older } = diskFacts();
    const disks = [
      { lun: 5, facts: diskFacts({ commandQueuing: false }), field: '4005000000000000' },
      { lun: 6, facts: older as DiskFacts },
    ];
    await records.save(record({ disks }));
    const { records: found, broken } = await records.load();
    expect(broken).toEqual([]);
    expect(found[0]?.disks).toMatchObject([
      { lun: 5, facts: { commandQueuing: false }, field: '4005000000000000' },
      { lun: 6, facts: { commandQueuing: true, notes: [] } },
    ]);
  });

  it('a record that is written can be read, whatever the number of its disks', async () => {
    const records = new SessionRecords(directory);
    const identifiers = ['x'.repeat(4096)];
    const disks = (count: number) =>
      Array.from({ length: count }, (_, lun) => ({ lun, facts: diskFacts({ identifiers }) }));
    await records.save(record({ disks: disks(600) }));
    const tooMany = records.save(record({ disks: disks(5000) }));
    await expect(tooMany).rejects.toThrow(/larger than 16 MiB with its 5000 disks.*--luns/);
    const { records: found, broken } = await records.load();
    expect([found[0]?.disks.length, broken]).toEqual([600, []]);
  });

  it('a newer record of the same initiator, target and type replaces the older one', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    await records.save(record({ sessionId: 'fedcba9876543210' }));
    await records.save(record({ sessionType: 'informational' }));
    expect((await records.load()).records).toHaveLength(2);
  });

  it.each([
    ['half of it', (text: string) => text.slice(0, 60)],
    ['nothing', () => ''],
    ['another version', (text: string) => text.replace('"version":2', '"version":9')],
    [
      'a session number that is none',
      (text: string) => text.replace('0123456789abcdef', '../../x'),
    ],
    ['an unknown field', (text: string) => text.replace('{', '{"secret":"x",')],
    ['the record of another session', (text: string) => text.replace('disk1', 'disk2')],
  ])('a record with %s is set aside and reported; the others are read', async (_what, spoil) => {
    const records = new SessionRecords(directory);
    await records.save(record());
    const [name = ''] = readdirSync(join(directory, 'logins'));
    const path = join(directory, 'logins', name);
    await records.save(record({ sessionType: 'boot' }));
    writeFileSync(path, spoil(readFileSync(path, 'utf8')));
    const { records: found, broken } = await records.load();
    expect(found).toEqual([record({ sessionType: 'boot' })]);
    expect(broken).toEqual([{ path: `${path}.broken`, reason: expect.any(String) }]);
    expect((await records.load()).broken).toEqual([]);
  });

  it('a record that a logout removes during the load is neither loaded nor broken', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    // Named by the directory and gone when it is opened, as in that race.
    symlinkSync('gone', join(directory, 'logins', 'removed.json'));
    expect(await records.load()).toEqual({ records: [record()], broken: [] });
  });

  it('a record that cannot be read now is reported and stays as it is', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    const [name = ''] = readdirSync(join(directory, 'logins'));
    const path = join(directory, 'logins', name);
    rmSync(path);
    symlinkSync(name, path);
    const { records: found, broken } = await records.load();
    expect(found).toEqual([]);
    expect(broken).toEqual([{ path, reason: expect.stringContaining('ELOOP') }]);
    expect(readdirSync(join(directory, 'logins'))).toEqual([name]);
    await expect(records.find(record())).rejects.toMatchObject({ code: 'ERR_STATE_RECORD' });
  });

  it('a record that is a pipe, or cannot be set aside, does not keep others from being read', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    const logins = join(directory, 'logins');
    execFileSync('mkfifo', [join(logins, '0.json')]);
    writeFileSync(join(logins, '1.json'), 'x');
    mkdirSync(join(logins, '1.json.broken', 'x'), { recursive: true });
    const { records: found, broken } = await records.load();
    expect(found).toEqual([record()]);
    const paths = ['0.json.broken', '1.json'].map((name) => join(logins, name));
    expect(broken.map(({ path }) => path)).toEqual(paths);
  });

  it('a record that cannot be written is an error of the operator, with the reason', async () => {
    const records = new SessionRecords(directory);
    writeFileSync(join(directory, 'logins'), 'a file where the directory is to be');
    await expect(records.save(record())).rejects.toMatchObject({
      code: 'ERR_STATE_RECORD',
      exitCode: 1,
      message: expect.stringMatching(/EEXIST|ENOTDIR/),
    });
  });

  it('a record that is being written at a power failure is the old one', async () => {
    const records = new SessionRecords(directory);
    await records.save(record());
    const [name = ''] = readdirSync(join(directory, 'logins'));
    writeFileSync(join(directory, 'logins', `${name}.1.1.tmp`), '{"version":');
    expect((await records.load()).records).toEqual([record()]);
  });
});

describe('StateLock', () => {
  it('a state directory belongs to one living process (exit status 28)', async () => {
    await StateLock.take(directory);
    await expect(StateLock.take(directory)).rejects.toMatchObject({ exitCode: 28 });
  });

  it('a state directory is taken over from a dead process', async () => {
    const child = spawn('true');
    await once(child, 'exit');
    writeFileSync(join(directory, 'owner.4'), `${child.pid} 12345\n`);
    await StateLock.take(directory);
    expect(readdirSync(directory)).toEqual(['.owner-spare', 'owner.5']);
  });

  it('a state directory is taken over if the PID of the dead process is used again', async () => {
    writeFileSync(join(directory, 'owner.1'), `${process.pid} 1\n`);
    await StateLock.take(directory);
    expect(readFileSync(join(directory, 'owner.2'), 'utf8')).toContain(`${process.pid} `);
  });

  it('a state directory has one owner if many request it at once', async () => {
    writeFileSync(join(directory, 'owner.7'), '999999999 1\n');
    const takes = await Promise.allSettled(
      Array.from({ length: 20 }, () => StateLock.take(directory)),
    );
    expect(takes.filter((take) => take.status === 'fulfilled')).toHaveLength(1);
    expect(readdirSync(directory)).toEqual(['.owner-spare', 'owner.8']);
  });
});

describe('Semaphore', () => {
  it('no more uses run than there are slots, and they start in order', async () => {
    const slots = new Semaphore(2);
    let running = 0;
    let most = 0;
    const order: number[] = [];
    await Promise.all(
      [0, 1, 2, 3, 4, 5].map((number) =>
        slots.use(async () => {
          order.push(number);
          running += 1;
          most = Math.max(most, running);
          await new Promise(setImmediate);
          running -= 1;
        }),
      ),
    );
    expect(most).toBe(2);
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it('a slot that is released early is not released twice', async () => {
    const slots = new Semaphore(1);
    let running = 0;
    await slots.use(async (release) => {
      release();
      release();
    });
    const uses = [1, 2, 3].map(() =>
      slots.use(async () => {
        running += 1;
        expect(running).toBe(1);
        await new Promise(setImmediate);
        running -= 1;
      }),
    );
    await Promise.all(uses);
  });
});

describe('a repeated login', () => {
  const plan = (options: Record<string, unknown>, host = '192.0.2.1') =>
    resolveLogin(
      {
        targetName: TARGET,
        portal: { host, port: 3260 },
        sessionType: 'data',
        persistent: false,
        options: { initiatorName: 'iqn.2001-04.com.example:me', ...options },
      },
      { environment: {}, stateDirectory: directory },
    );

  it('a repeated login is the same one if it requests nothing else', () => {
    const existing = plan({ headerDigest: 'CRC32C', portals: ['192.0.2.2'] });
    requireSameOptions(existing, plan({}), '1');
    requireSameOptions(existing, plan({ headerDigest: ['CRC32C'] }), '1');
    requireSameOptions(existing, plan({}, '192.0.2.2'), '1');
  });

  it('a repeated login at another portal is one more path, unless several are not allowed', () => {
    requireSameOptions(plan({}), plan({}, '192.0.2.9'), '1');
    const single = plan({ multipath: 'off' });
    expect(() => requireSameOptions(single, plan({}, '192.0.2.9'), '1')).toThrowError(
      expect.objectContaining({ exitCode: 15 }),
    );
  });

  it.each([
    ['another digest', { headerDigest: 'None' }],
    ['another timer', { removalLatencySeconds: 1 }],
  ])('a repeated login with %s is refused with exit status 15', (_what, options) => {
    const existing = plan({ headerDigest: 'CRC32C' });
    expect(() => requireSameOptions(existing, plan(options), '1')).toThrowError(
      expect.objectContaining({ exitCode: 15 }),
    );
  });

  it.each([
    ['an option that does not exist', { headerDigests: 'None' }, /Did you mean headerDigest/],
    ['a wrong value', { queueDepthMax: 0 }, /queue-depth-max must be a whole number/],
  ])('a login with %s is rejected in words', (_what, options, words) => {
    expect(() => plan(options)).toThrowError(words);
  });
});
