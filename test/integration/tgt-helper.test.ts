import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { startTgt } from '../helpers/tgt.js';

const run = promisify(execFile);

const MIB = 1 << 20;

test('a target has the requested LUNs, sizes and block lengths, as libiscsi sees them', async () => {
  await using tgt = await startTgt({
    luns: [
      { sizeBytes: 8 * MIB },
      { sizeBytes: 16 * MIB, blockSize: 4096, readOnly: true, params: { scsi_sn: 'serial-2' } },
    ],
    targets: [{ iqn: 'iqn.2024-01.com.example:other', luns: [{ sizeBytes: MIB }] }],
  });
  const listed = await run('iscsi-ls', ['-s', `iscsi://127.0.0.1:${tgt.port}`]);
  expect(listed.stdout).toContain(`Target:${tgt.iqn} `);
  expect(listed.stdout).toContain('Target:iqn.2024-01.com.example:other ');
  expect(listed.stdout).toMatch(/Lun:2 +Type:DIRECT_ACCESS/);

  const capacity = await run('iscsi-readcapacity16', [tgt.url(2)]);
  expect(capacity.stdout).toContain(`Total size:${16 * MIB}`);
  expect(capacity.stdout).toContain('LOGICAL BLOCK LENGTH IN BYTES:4096');
  const inquiry = await run('iscsi-inq', ['-e', '1', '-c', '128', tgt.url(2)]);
  expect(inquiry.stdout).toContain('serial-2');
  const shown = await tgt.adm('--lld', 'iscsi', '--mode', 'target', '--op', 'show');
  expect(shown.match(/Readonly: (Yes|No)/g)?.slice(0, 3)).toEqual([
    'Readonly: No',
    'Readonly: No',
    'Readonly: Yes',
  ]);
});

test('CHAP rejects the wrong password and accepts the right one', async () => {
  const chap = { user: 'alice', password: 'correct-horse' };
  await using tgt = await startTgt({ luns: [{ sizeBytes: MIB }], chap });
  const environment = { ...process.env, LIBISCSI_CHAP_USERNAME: 'alice' };
  const login = (password: string): Promise<unknown> =>
    run('iscsi-readcapacity16', [tgt.url()], {
      env: { ...environment, LIBISCSI_CHAP_PASSWORD: password },
    });
  await expect(login('wrong-horse')).rejects.toThrow(/Failed to log in/);
  await login('correct-horse');
});

test('a killed target comes back on its port with its data; a stopped one leaves no file', async () => {
  const tgt = await startTgt({ luns: [{ sizeBytes: MIB }] });
  try {
    const firstPid = tgt.pid;
    await tgt.kill();
    await expect(run('iscsi-readcapacity16', [tgt.url()])).rejects.toThrow();
    await tgt.restart();
    expect(tgt.pid).not.toBe(firstPid);
    await run('iscsi-readcapacity16', [tgt.url()]);
  } finally {
    await tgt.stop();
  }
  expect(() => tgt.pid).toThrow('not running');
  expect(existsSync(dirname(tgt.logPath))).toBe(false);
});

test('two targets run side by side', async () => {
  const [one, two] = await Promise.all([
    startTgt({ luns: [{ sizeBytes: MIB }] }),
    startTgt({ luns: [{ sizeBytes: 2 * MIB }] }),
  ]);
  try {
    expect(one.port).not.toBe(two.port);
    const capacity = await run('iscsi-readcapacity16', [two.url()]);
    expect(capacity.stdout).toContain(`Total size:${2 * MIB}`);
  } finally {
    await Promise.all([one.stop(), two.stop()]);
  }
});
