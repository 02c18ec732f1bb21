import { writeFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { parseCpuList } from '../../src/base/cpu-list.js';
import { UsageError } from '../../src/base/errors.js';
import { pinProcess } from '../../src/io/cpu-affinity.js';
import { TargetDisk } from '../../src/target/disk.js';
import { Workplace } from '../helpers/command-process.js';
import { embeddedTarget } from '../helpers/embedded-target.js';

describe('parseCpuList (cpuset(7), "List format")', () => {
  // The first two are that page's own examples.
  it.each([
    ['0-4,9', [0, 1, 2, 3, 4, 9]],
    ['0-2,7,12-14', [0, 1, 2, 7, 12, 13, 14]],
    ['3', [3]],
    ['5,0-1,1', [0, 1, 5]],
    ['8191', [8191]],
  ])('the list %s is valid', (text, processors) => {
    expect(parseCpuList(text)).toEqual(processors);
  });

  it.each(['', ' ', ',', '1,', '-1', '1-', '3-1', '1-2-3', '0x1', 'all', '8192', '0-99999', '1.5'])(
    "the list '%s' is invalid",
    (text) => {
      expect(parseCpuList(text)).toBeNull();
    },
  );
});

describe('pinProcess', () => {
  const refused = Object.assign(new Error('refused'), { code: 'EINVAL', errno: 22 });

  it('a processor that the process may not use is an error that names the allowed ones', async () => {
    await using place = await Workplace.make();
    const status = place.file('status');
    await writeFile(status, 'Name:\tx\nCpus_allowed:\t0b\nCpus_allowed_list:\t0-1,3\n');
    const chosen: (readonly number[])[] = [];
    const addon = { setCpuAffinity: (list: readonly number[]) => void chosen.push(list) };
    await pinProcess(addon, [1, 3], status);
    expect(chosen).toEqual([[1, 3]]);
    const error = await pinProcess(addon, [1, 2, 3], status).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UsageError);
    expect(String(error)).toMatch(/processor 2, .* has 0-1,3/);
    expect(chosen).toHaveLength(1);
  });

  it('a list that the kernel rejects is an error with its errno', async () => {
    const addon = {
      setCpuAffinity: () => {
        throw refused;
      },
    };
    await expect(pinProcess(addon, [0])).rejects.toThrow(/EINVAL/);
  });
});

describe('--cpu-affinity', { timeout: 120_000 }, () => {
  const NAME = 'iqn.2001-04.com.example:pinned';

  async function served(flags: readonly string[]) {
    const luns = { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) };
    await using target = await embeddedTarget({ name: NAME, luns });
    await using place = await Workplace.make();
    // The server is the parent of the command's shell; each of its threads has a status.
    const command = 'grep -h Cpus_allowed_list /proc/$PPID/task/*/status';
    return await place.run(['serve', `${target.url}/0`, '--run', command, ...flags]);
  }

  it('the option puts every thread of the serving process on these processors', async () => {
    const { code, out, err } = await served(['--cpu-affinity', '0']);
    expect(code, err).toBe(0);
    const threads = out.trim().split('\n');
    expect(threads.length).toBeGreaterThan(4);
    expect(new Set(threads)).toEqual(new Set(['Cpus_allowed_list:\t0']));
  });

  it.each([
    ['8191', /processor 8191, which this process may not use/],
    ['one', /--cpu-affinity must be a list of processors, e.g. 0-3,5, not "one"/],
    ['2-1', /--cpu-affinity must be a list of processors/],
  ])('the value %s is rejected with 7 before anything else is done', async (value, words) => {
    const { code, err } = await served(['--cpu-affinity', value]);
    expect(code).toBe(7);
    expect(err).toMatch(words);
  });
});
