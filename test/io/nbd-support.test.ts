import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { kernelSupport, requireKernelNbd, type SupportProbe } from '../../src/io/nbd-support.js';

const ROOT_STATUS = 'Name:\tnode\nCapEff:\t000001ffffffffff\n';
const USER_STATUS = 'Name:\tnode\nCapEff:\t0000000000000000\n';
const HOST_UID_MAP = '         0          0 4294967295\n';

let root = '';

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'nbd-support-'));
});
afterEach(() => rm(root, { recursive: true }));

async function probe(
  files: Record<string, string>,
  loadModule: () => Promise<string | null> = () => Promise.resolve('not asked for'),
): Promise<SupportProbe> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  const paths = { sys: `${root}/sys`, proc: `${root}/proc`, dev: `${root}/dev` };
  return { paths, kernelRelease: '6.1.0-test', loadModule };
}

/** An addon that finds the family from the `nth` question on. */
function familyFrom(nth: number) {
  let asked = 0;
  return {
    nbdResolveFamily: () => {
      asked += 1;
      if (asked >= nth) return Promise.resolve({ id: 30 });
      const facts = { code: 'ENOENT', errno: 2, syscall: 'CTRL_CMD_GETFAMILY nbd' };
      return Promise.reject(Object.assign(new Error('no such family'), facts));
    },
  };
}

const present = familyFrom(1);
const absent = familyFrom(Number.POSITIVE_INFINITY);

describe('kernelSupport', () => {
  it('the kernel is supported if the driver responds and the process has CAP_SYS_ADMIN', async () => {
    const here = await probe({
      'proc/self/status': ROOT_STATUS,
      'proc/self/uid_map': HOST_UID_MAP,
    });
    expect(await kernelSupport(present, here)).toEqual({ supported: true });
  });

  it('a process without CAP_SYS_ADMIN is not permitted (13)', async () => {
    const here = await probe({ 'proc/self/status': USER_STATUS });
    const support = await kernelSupport(present, here);
    expect(support).toMatchObject({ supported: false, exitCode: 13 });
    expect(support).toHaveProperty('reason', expect.stringContaining('CAP_SYS_ADMIN'));
  });

  it('the root of a user namespace is not permitted (13)', async () => {
    const here = await probe({
      'proc/self/status': ROOT_STATUS,
      'proc/self/uid_map': '         0       1000          1\n',
    });
    const support = await kernelSupport(present, here);
    expect(support).toMatchObject({ exitCode: 13, reason: expect.stringContaining('rootless') });
  });

  it('the reason names the network namespace if the driver is loaded but does not respond', async () => {
    const here = await probe({
      'sys/module/nbd/parameters/nbds_max': '0\n',
      'proc/self/status': ROOT_STATUS,
      'proc/modules': '',
    });
    const support = await kernelSupport(absent, here);
    expect(support).toMatchObject({
      exitCode: 27,
      advice: expect.stringContaining('--network host'),
    });
  });

  it('the reason says that a kernel without loadable modules cannot get the driver', async () => {
    const here = await probe({ 'proc/self/status': ROOT_STATUS });
    const support = await kernelSupport(absent, here);
    expect(support).toMatchObject({
      exitCode: 27,
      reason: expect.stringContaining('6.1.0-test'),
      advice: expect.stringContaining('CONFIG_BLK_DEV_NBD'),
    });
  });

  it('the reason says that modules are disabled until the next boot', async () => {
    const here = await probe({
      'proc/self/status': ROOT_STATUS,
      'proc/modules': '',
      'proc/sys/kernel/modules_disabled': '1\n',
    });
    const support = await kernelSupport(absent, here);
    expect(support).toMatchObject({ reason: expect.stringContaining('modules_disabled=1') });
  });

  it('the advice to a user without the right to load the module is one command (13)', async () => {
    const here = await probe({ 'proc/self/status': USER_STATUS, 'proc/modules': '' });
    const support = await kernelSupport(absent, here);
    expect(support).toMatchObject({
      exitCode: 13,
      advice: expect.stringContaining('modprobe nbd nbds_max=0'),
    });
  });

  it('the module is loaded if nothing else is missing', async () => {
    let loads = 0;
    const files = {
      'proc/self/status': ROOT_STATUS,
      'proc/self/uid_map': HOST_UID_MAP,
      'proc/modules': '',
    };
    const here = await probe(files, () => {
      loads += 1;
      return Promise.resolve(null);
    });
    expect(await kernelSupport(familyFrom(2), here)).toEqual({ supported: true });
    expect(loads).toBe(1);
  });

  it('the reason repeats the error of modprobe, and the advice names the packages of the module', async () => {
    const files = { 'proc/self/status': ROOT_STATUS, 'proc/modules': '' };
    const here = await probe(files, () => Promise.resolve('FATAL: Module nbd not found'));
    const support = await kernelSupport(absent, here);
    expect(support).toMatchObject({
      exitCode: 27,
      reason: expect.stringContaining('FATAL: Module nbd not found'),
      advice: expect.stringContaining('linux-modules-extra'),
    });
  });

  it('requireKernelNbd throws a UsageError that also names the command without the driver', async () => {
    const here = await probe({ 'proc/self/status': ROOT_STATUS });
    const error = await requireKernelNbd(absent, here).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({ exitCode: 27, code: 'ERR_NBD_UNSUPPORTED' });
    expect((error as Error).message).toContain('iscsi-nbd serve');
    expect((error as Error).message).not.toContain('\n');
  });
});
