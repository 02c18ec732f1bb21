/**
 * A process that ends by itself (an assertion that failed, V8 without memory: SIGABRT) while the
 * program that is to store its core file lies on the disk that it serves.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startTgt } from '../helpers/tgt.js';
import { attach, cleanUp, shell, stuckTasks } from './attached.js';
import { MIB } from './targets.js';

const CORE_PATTERN = '/proc/sys/kernel/core_pattern';
let folder = '';
let patternBefore = '';

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'crash-'));
  patternBefore = await readFile(CORE_PATTERN, 'utf8');
});

afterEach(async () => {
  await writeFile(CORE_PATTERN, patternBefore);
  await cleanUp();
  await rm(folder, { recursive: true });
});

it('a crash under a core_pattern whose program lies on the served disk is a pause, without a core file', async () => {
  await using tgt = await startTgt({ luns: [{ sizeBytes: 32 * MIB }] });
  const attached = await attach(tgt.url());
  const mount = join(folder, 'mnt');
  await mkdir(mount);
  await shell(`mkfs.ext4 -q ${attached.device}; mount ${attached.device} ${mount}
    head -c 4M /dev/urandom >${mount}/data; sha256sum ${mount}/data >${folder}/sum
    cp /bin/dd ${mount}/store; sync -f ${mount}`);
  await writeFile(CORE_PATTERN, `|${mount}/store of=${folder}/core status=none`);
  await shell('echo 3 >/proc/sys/vm/drop_caches');
  expect(await attached.end('SIGABRT')).toBe(null);
  const next = await attach(tgt.url());
  expect(next.device).toBe(attached.device);
  await shell(`sha256sum -c --quiet ${folder}/sum; test ! -e ${folder}/core`);
  expect(await stuckTasks()).toEqual([]);
  await shell(`umount ${mount}; e2fsck -fn ${next.device}`);
  expect(await next.end('SIGTERM')).toBe(0);
});
