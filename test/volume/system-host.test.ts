import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseMountInfo } from '../../src/io/mount-info.js';
import { isOfNbd, mountAt } from '../../src/volume/mount-table.js';
import { systemHost } from '../../src/volume/system-host.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-host-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Lines of a Debian 12 with an XFS on /dev/nbd0, a bind mount of it and a device node. */
const MOUNTINFO = `22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
41 28 43:0 / /var/lib/a\\040b rw,relatime shared:20 master:3 - xfs /dev/nbd0 rw,attr2
42 28 43:0 /sub /pods/1 ro,relatime - xfs /dev/nbd0 rw,attr2
43 28 0:5 /nbd7 /pods/2 rw,nosuid - devtmpfs udev rw,size=1k
44 28 0:44 / /pods/1 rw - tmpfs tmpfs rw
malformed
`;

describe('what is mounted', () => {
  it('a path with a blank, options and optional fields are read', () => {
    const mounts = parseMountInfo(MOUNTINFO);
    expect(mounts).toHaveLength(6);
    expect(mountAt(mounts, '/var/lib/a b')).toMatchObject({ device: '43:0', type: 'xfs' });
    expect(mounts[3]).toMatchObject({ root: '/sub', options: ['ro', 'relatime'] });
  });

  it('the mount on top is the one at a path, and only those of NBD are ours', () => {
    const mounts = parseMountInfo(MOUNTINFO);
    expect(mountAt(mounts, '/pods/1')?.type).toBe('tmpfs');
    expect(mounts.filter(isOfNbd).map(({ path }) => path)).toEqual([
      ...['/var/lib/a b', '/pods/1', '/pods/2'],
    ]);
  });
});

describe('programs', () => {
  it('an argument is never read by a shell', async () => {
    const { status, stdout } = await systemHost.run('echo', ['$(id)', ';', '`id`'], 10_000);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '$(id) ; `id`\n' });
  });

  it('a program that does not end is not waited for, and one that is missing is named', async () => {
    await expect(systemHost.run('sleep', ['1000'], 50)).rejects.toThrow(/not ended in 0.05 s/);
    await expect(systemHost.run('no-such-program', [], 1000)).rejects.toThrow(/ENOENT.*Install/);
    expect((await systemHost.run('false', [], 10_000)).status).toBe(1);
  });
});

describe('paths', () => {
  it('a link is followed, and the last part need not exist', async () => {
    const link = join(folder, 'link');
    symlinkSync(folder, link);
    expect(await systemHost.resolvePath(join(link, 'new'))).toBe(join(folder, 'new'));
    expect(await systemHost.resolvePath(link)).toBe(folder);
    // A mount is seen at the path that has no link in it, however much of it is made first.
    expect(await systemHost.resolvePath(join(link, 'a', 'b', 'c'))).toBe(join(folder, 'a/b/c'));
  });

  it('a folder or a file with something in it is not removed', async () => {
    const file = join(folder, 'file');
    await systemHost.makeFile(file);
    writeFileSync(file, 'data');
    await systemHost.makeFile(file);
    await expect(systemHost.removeFile(file)).rejects.toThrow(/not an empty file/);
    await expect(systemHost.removeFolder(folder)).rejects.toThrow(/ENOTEMPTY/);
    writeFileSync(file, '');
    await systemHost.removeFile(file);
    await systemHost.removeFile(file);
    expect(await systemHost.kindOf(file)).toBe('none');
    expect(await systemHost.deviceNumberOf('/dev/null')).toBeNull();
    expect((await systemHost.statistics(folder)).totalBytes).toBeGreaterThan(0);
  });
});
