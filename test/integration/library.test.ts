import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BlockError, discover, LinkError, openSession, UsageError } from '../../src/library.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { freePort, startTgt } from '../helpers/tgt.js';

const NAME = 'iqn.2001-04.com.example:library';
const MIB = 1 << 20;
const options = {
  initiatorName: 'iqn.2001-04.com.example:me',
  reconnectIntervalSeconds: 0.1,
  loginTimeoutSeconds: 5,
};

async function embedded(diskOptions: TargetDiskOptions = {}) {
  const disk = TargetDisk.ram({ sizeBytes: 32 * MIB, ...diskOptions });
  return { disk, ...(await embeddedTarget({ name: NAME, luns: { 0: disk } })) };
}

describe('discover', () => {
  it('discover lists the names and portals of a target, and logs out', async () => {
    await using target = await embedded();
    const found = await discover(target.server.portal, options);
    const { host, port } = target.server;
    expect(found).toEqual([{ name: NAME, portals: [{ host, port, portalGroupTag: 1 }] }]);
    expect(target.node.sessions).toEqual([]);
    expect(target.node.stats.discoveryLogouts).toBe(1);
  });

  it('discover rejects with LinkError if no target listens', async () => {
    await expect(discover(`127.0.0.1:${await freePort()}`, options)).rejects.toThrow(LinkError);
  });

  it('discover ends with the reason of its signal', async () => {
    await using target = await embedded();
    target.server.pauseAccept('hold');
    const reason = new Error('enough');
    const aborter = new AbortController();
    setTimeout(() => aborter.abort(reason), 100);
    const signal = aborter.signal;
    await expect(discover(target.server.portal, { ...options, signal })).rejects.toBe(reason);
  });
});

describe('ClientSession', () => {
  it('the session writes and reads any number of whole blocks; the target holds the same', async () => {
    await using target = await embedded();
    await using session = await openSession(target.url, options);
    expect(session.sessionId).toMatch(/^[0-9a-f]{16}$/);
    expect(await session.luns()).toEqual([0]);
    expect(await session.capacity(0)).toEqual({
      sizeBytes: 32 * MIB,
      blockSizeBytes: 512,
      readOnly: false,
    });
    const bytes = randomBytes(9 * MIB + 512);
    await session.write(0, 3 * 512, bytes);
    expect(target.disk.read(3 * 512, bytes.length).equals(bytes)).toBe(true);
    expect((await session.read(0, 3 * 512, bytes.length)).equals(bytes)).toBe(true);
    expect(await session.read(0, 0, 0)).toEqual(Buffer.alloc(0));
  });

  it('the session keeps requests of many callers apart', async () => {
    await using target = await embedded();
    await using session = await openSession(target.url, options);
    const blocks = Array.from({ length: 64 }, () => randomBytes(4096));
    await Promise.all(blocks.map((bytes, index) => session.write(0, index * 4096, bytes)));
    const read = await Promise.all(blocks.map((_, index) => session.read(0, index * 4096, 4096)));
    expect(read.every((bytes, index) => bytes.equals(blocks[index]!))).toBe(true);
  });

  it('the session transfers more than heldBytesMax', async () => {
    await using target = await embedded();
    await using session = await openSession(target.url, { ...options, heldBytesMax: MIB });
    const bytes = randomBytes(8 * MIB);
    await Promise.all([0, 8, 16].map((at) => session.write(0, at * MIB, bytes)));
    expect((await session.read(0, 16 * MIB, bytes.length)).equals(bytes)).toBe(true);
  });

  it('fua and flush reach the target as such', async () => {
    await using target = await embedded({ writeCache: 'volatile' });
    await using session = await openSession(target.url, options);
    await session.write(0, 0, randomBytes(4096));
    expect(target.disk.unflushedBytes).toBe(4096);
    await session.flush(0);
    expect(target.disk.unflushedBytes).toBe(0);
    await session.write(0, 8192, randomBytes(4096), { fua: true });
    expect(target.disk.unflushedBytes).toBe(0);
  });

  it('a range that is not whole blocks inside the disk is rejected, with the numbers', async () => {
    await using target = await embedded();
    await using session = await openSession(target.url, options);
    const ranges = [
      [1, 512],
      [0, 513],
      [-512, 512],
      [32 * MIB, 512],
      [Number.NaN, 512],
      [2 ** 60, 512],
    ] as const;
    for (const [offset, length] of ranges) {
      await expect(session.read(0, offset, length)).rejects.toThrow(UsageError);
    }
    await expect(session.write(0, 512, randomBytes(100))).rejects.toThrow(
      /100 bytes at offset 512 of LUN 0 are not whole blocks of 512 bytes inside its 33554432/,
    );
  });

  it('a missing LUN is reported with the LUNs that exist', async () => {
    await using target = await embedded();
    await expect(openSession(`${target.url}/5`, options)).rejects.toMatchObject({
      exitCode: 21,
      message: expect.stringMatching(/no LUN 5 .* reports: 0/),
    });
    expect(target.node.sessions).toEqual([]);
  });

  it('a write-protected disk fails writes with EPERM', async () => {
    await using target = await embedded({ readOnly: true });
    await using session = await openSession(target.url, options);
    expect((await session.capacity(0)).readOnly).toBe(true);
    const failure = await session.write(0, 0, randomBytes(512)).catch((error) => error);
    expect(failure).toBeInstanceOf(BlockError);
    expect(failure.errno).toBe('EPERM');
  });

  it('a signal ends the wait for a command that is never answered', async () => {
    await using target = await embedded();
    await using session = await openSession(`${target.url}/0`, options);
    // READ(10) and READ(16) of SBC-3.
    target.node.faults.onCommand = ({ opcode }) =>
      opcode === 0x28 || opcode === 0x88 ? 'ignore' : undefined;
    const aborter = new AbortController();
    const reading = session.read(0, 0, 512, { signal: aborter.signal });
    reading.catch(() => undefined);
    const seen = () => target.node.stats.commandCount(0x28) + target.node.stats.commandCount(0x88);
    await expect.poll(seen).toBe(1);
    const reason = new Error('enough');
    aborter.abort(reason);
    await expect(reading).rejects.toBe(reason);
  });

  it('the session survives an outage as the same session, and reports it', async () => {
    await using target = await embedded();
    const states: string[] = [];
    await using session = await openSession(`${target.url}/0`, {
      ...options,
      onEvent: (event) => {
        if (event.event === 'sessionState') states.push(event.to);
      },
    });
    const { sessionId } = session;
    const bytes = randomBytes(MIB);
    await session.write(0, 0, bytes);
    await target.server.close();
    const reading = session.read(0, 0, MIB);
    await target.server.listen();
    expect((await reading).equals(bytes)).toBe(true);
    expect(session.sessionId).toBe(sessionId);
    expect(states).toEqual(['loggedIn', 'reconnecting', 'loggedIn']);
  });

  it('requests fail with EIO after the removal latency, and succeed when the target is back', async () => {
    await using target = await embedded();
    await using session = await openSession(`${target.url}/0`, {
      ...options,
      removalLatencySeconds: 0.3,
    });
    await target.server.close();
    await expect(session.read(0, 0, 512)).rejects.toMatchObject({ errno: 'EIO' });
    await target.server.listen();
    await expect
      .poll(() => session.read(0, 0, 512).catch(() => null), { timeout: 5000 })
      .not.toBe(null);
  });

  it('the session logs out when it is disposed of', async () => {
    await using target = await embedded();
    {
      await using session = await openSession(target.url, options);
      await session.read(0, 0, 512);
    }
    expect(target.node.stats.logouts).toBe(1);
    expect(target.node.sessions).toEqual([]);
    expect(target.node.stats.violations).toEqual([]);
  });

  it('the options are checked by name and value', async () => {
    const url = `iscsi://127.0.0.1:1/${NAME}`;
    const misspelt = { queueDepth: 4 } as object;
    await expect(openSession(url, misspelt)).rejects.toThrow(/no option "queueDepth".*Did you/);
    await expect(openSession(url, { queueDepthMax: 0 })).rejects.toThrow(/queueDepthMax must be/);
    const ofProcess = { busyPollMicroseconds: 10 } as object;
    await expect(openSession(url, ofProcess)).rejects.toThrow(/busyPollMicroseconds is for comm/);
    await expect(openSession(`iscsi://u@h/${NAME}`)).rejects.toThrow(/no secret/);
  });
});

describe('the library with tgt', () => {
  it('the library discovers, inquires, writes and reads, with CHAP', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'library-'));
    try {
      const file = join(folder, 'disk.img');
      await using tgt = await startTgt({
        luns: [{ file, sizeBytes: 8 * MIB }],
        chap: { user: 'alice', password: 'correct-horse' },
      });
      const found = await discover(`127.0.0.1:${tgt.port}`, options);
      expect(found.map((target) => target.name)).toEqual([tgt.iqn]);
      const chap = { user: 'alice', secret: 'correct-horse' };
      const bytes = randomBytes(3 * MIB);
      {
        await using session = await openSession(tgt.url(1), {
          ...options,
          chap,
          chapAlgorithms: ['MD5'],
        });
        const cdb = Buffer.from('120000002400', 'hex');
        const inquiry = await session.execute({ lun: 1, cdb, direction: 'read', length: 36 });
        expect(inquiry.status).toBe(0);
        expect(inquiry.data.toString('latin1', 8, 16)).toBe('IET     ');
        await session.write(1, 4096, bytes);
        await session.flush(1);
        expect((await session.read(1, 4096, bytes.length)).equals(bytes)).toBe(true);
      }
      const held = await readFile(file);
      expect(held.subarray(4096, 4096 + bytes.length).equals(bytes)).toBe(true);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
