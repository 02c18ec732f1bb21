import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { startTgt } from '../helpers/tgt.js';

const run = promisify(execFile);

test('the kernel version is one of those that are supported', () => {
  expect(release()).toMatch(/^6\.(1|12)\./);
});

test('the nbd module is loaded without devices, so that netlink makes each one', () => {
  expect(readFileSync('/proc/modules', 'utf8')).toMatch(/^nbd /m);
  expect(readFileSync('/sys/module/nbd/parameters/nbds_max', 'utf8').trim()).toBe('0');
});

test('a real target responds on loopback', async () => {
  await using tgt = await startTgt({ luns: [{ sizeBytes: 1 << 20 }] });
  const capacity = await run('iscsi-readcapacity16', [tgt.url()]);
  expect(capacity.stdout).toContain(`Total size:${1 << 20}`);
});

test('tests run as root, with the loopback as the only network', () => {
  expect(process.getuid?.()).toBe(0);
  expect(readdirSync('/sys/class/net')).toEqual(['lo']);
});
