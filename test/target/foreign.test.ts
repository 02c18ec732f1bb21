import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import type { TargetNodeOptions } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';

/**
 * libiscsi and QEMU judge the target. Debian packages: libiscsi-bin, qemu-utils and
 * qemu-block-extra. Without them the tests skip, except in CI.
 */
const NAME = 'iqn.2024-01.example:judged';
const run = promisify(execFile);

function missing(tool: string): boolean {
  if (process.env['CI']) return false;
  return !(process.env['PATH'] ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

let server: TargetServer | null = null;

afterEach(async () => {
  await server?.close();
  server = null;
});

async function serve(
  options: Partial<TargetNodeOptions> = {},
  disk = TargetDisk.ram({ sizeBytes: 256 << 20 }),
): Promise<{ node: TargetNode; url: string }> {
  const node = new TargetNode({ targets: [{ name: NAME, luns: { 1: disk } }], ...options });
  server = await startTargetServer(node);
  return { node, url: `iscsi://${server.portal}/${NAME}/1` };
}

/** Runs one family and gives failed and passed assertion counts of its summary. */
async function testCu(family: string, url: string): Promise<{ failed: number; passed: number }> {
  const { stdout } = await run('iscsi-test-cu', ['-d', '-s', '-t', family, url], {
    timeout: 60_000,
    maxBuffer: 64 << 20,
  });
  const summary = /asserts +(\d+) +(\d+) +(\d+) +(\d+)/.exec(stdout);
  if (summary === null) throw new Error(`no summary of ${family} in:\n${stdout.slice(-2000)}`);
  return { failed: Number(summary[4]), passed: Number(summary[3]) };
}

const FAMILIES = [
  'Read10',
  'Read12',
  'Read16',
  'ReadCapacity10',
  'ReadCapacity16',
  'Write10',
  'Write12',
  'Write16',
  'WriteSame10.Simple',
  'WriteSame10.BeyondEol',
  'WriteSame10.Unmap',
  'WriteSame16.Simple',
  'WriteSame16.Unmap',
  'WriteSame16.UnmapUntilEnd',
  'Unmap',
  'GetLBAStatus.Simple',
  'GetLBAStatus.BeyondEol',
  'Inquiry',
  'Mandatory',
  'ModeSense6',
  'TestUnitReady',
  'iSCSIcmdsn',
  'iSCSIdatasn',
  'iSCSIResiduals',
  'iSCSITMF',
];

describe.skipIf(missing('iscsi-test-cu'))('libiscsi’s test suite', () => {
  it.each(FAMILIES)('the family %s passes', { timeout: 60_000 }, async (family) => {
    const { url } = await serve();
    const { failed, passed } = await testCu(`ALL.${family}`, url);
    expect({ failed, some: passed > 0 }).toEqual({ failed: 0, some: true });
  });

  const negotiation = {
    'R2T for everything': { initialR2T: true, immediateData: false, maxOutstandingR2T: 1 },
    'immediate data only': { initialR2T: true, firstBurstLength: 4096 },
    'unsolicited data only': { immediateData: false, firstBurstLength: 16384 },
  };
  it.each(Object.entries(negotiation))(
    'the writes pass with %s',
    { timeout: 60_000 },
    async (_, keys) => {
      const small = { maxBurstLength: 16384, maxRecvDataSegmentLength: 4096 };
      const { url, node } = await serve({ negotiation: { ...small, ...keys } });
      for (const family of ['Write10.Simple', 'iSCSIResiduals']) {
        expect((await testCu(`ALL.${family}`, url)).failed).toBe(0);
      }
      // libiscsi takes the StatSN of an R2T for one that was spent; nothing else may be wrong.
      const others = node.stats.violations.filter((text) => !/05h with an ExpStatSN/.test(text));
      expect(others).toEqual([]);
    },
  );

  it('the family ReadOnly passes on a write-protected disk', { timeout: 60_000 }, async () => {
    const { url } = await serve({}, TargetDisk.ram({ sizeBytes: 1 << 26, readOnly: true }));
    expect((await testCu('ALL.ReadOnly', url)).failed).toBe(0);
  });

  it('the families pass with blocks of 4096 bytes', { timeout: 60_000 }, async () => {
    const disk = TargetDisk.ram({ sizeBytes: 512 << 20, blockSizeBytes: 4096 });
    const { url } = await serve({}, disk);
    for (const family of ['Read10', 'Write10.Simple', 'Unmap', 'GetLBAStatus']) {
      expect((await testCu(`ALL.${family}`, url)).failed).toBe(0);
    }
  });
});

describe.skipIf(missing('iscsi-ls'))('libiscsi’s tools', () => {
  it('iscsi-ls finds targets and LUNs, with sizes over 2 TiB', async () => {
    await serve({}, TargetDisk.ram({ sizeBytes: 8 * 1024 ** 4 }));
    const { stdout } = await run('iscsi-ls', ['-s', `iscsi://${server?.portal}`]);
    expect(stdout).toContain(`Target:${NAME} Portal:${server?.portal},1`);
    expect(stdout).toMatch(/Lun:1 +Type:DIRECT_ACCESS \(Size:\d+T\)/);
  });

  it('iscsi-inq passes CHAP, one way and mutual, with the right secrets only', async () => {
    const mutual = { user: 'target', secret: 'the target’s own secret' };
    const chap = { user: 'joe', secret: 'a secret of joe', mutual };
    const targets = [{ name: NAME, chap, luns: { 1: TargetDisk.ram({ sizeBytes: 1 << 20 }) } }];
    const { url } = await serve({ targets });
    const inquire = (environment: Record<string, string>) =>
      run('iscsi-inq', [url], { env: { ...process.env, ...environment } });
    const joe = { LIBISCSI_CHAP_USERNAME: 'joe', LIBISCSI_CHAP_PASSWORD: chap.secret };
    const target = { LIBISCSI_CHAP_TARGET_USERNAME: mutual.user };
    const proof = { ...target, LIBISCSI_CHAP_TARGET_PASSWORD: mutual.secret };
    expect((await inquire(joe)).stdout).toContain('CONNECTED');
    expect((await inquire({ ...joe, ...proof })).stdout).toContain('CONNECTED');
    const wrong = { ...joe, ...proof, LIBISCSI_CHAP_TARGET_PASSWORD: 'something else' };
    await expect(inquire(wrong)).rejects.toThrow(/CHAP_R/);
    const bad = { ...joe, LIBISCSI_CHAP_PASSWORD: 'not his secret' };
    await expect(inquire(bad)).rejects.toThrow(/Authentication failure/);
  });

  it('the writes pass with header digests', { timeout: 60_000 }, async () => {
    const { url, node } = await serve();
    const { failed } = await testCu('ALL.Write10.Simple', `${url}?header_digest=crc32c`);
    expect([failed, node.stats.headerDigestErrors]).toEqual([0, 0]);
  });
});

describe.skipIf(missing('qemu-io'))('QEMU’s initiator', () => {
  it('qemu-io writes, discards, zeroes and reads back', async () => {
    const { url, node } = await serve();
    const steps = [
      'write -P 0xa5 0 16M',
      'read -P 0xa5 0 16M',
      'discard 0 4M',
      'read -P 0 0 4M',
      'write -z 4M 4M',
      'read -P 0 4M 4M',
      'read -P 0xa5 8M 8M',
      'flush',
    ];
    const { stdout } = await run('qemu-io', [
      '-f',
      'raw',
      ...steps.flatMap((step) => ['-c', step]),
      url,
    ]);
    expect(stdout).not.toMatch(/fail|error/i);
    expect(node.stats.unmapBytes).toBeGreaterThanOrEqual(4 << 20);
    expect(node.stats.flushes).toBeGreaterThan(0);
  });
});
