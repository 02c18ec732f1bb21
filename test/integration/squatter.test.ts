/** A user of this host who wants to keep the daemon of root from its disks. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { nbdsh } from '../helpers/served-disk.js';
import { DaemonProcess } from './daemon-process.js';

const PROGRAM = fileURLToPath(new URL('squatter.program.py', import.meta.url));
const LOCKS = '/run/iscsi-nbd/locks';
const TARGET = 'iqn.2001-04.com.example:wanted';

/** Paths of the locks that were made since `sinceMs`. */
const locksSince = (sinceMs: number) =>
  readdirSync(LOCKS)
    .map((name) => join(LOCKS, name))
    .filter((path) => statSync(path).ctimeMs >= sinceMs);

it.skipIf(process.geteuid?.() !== 0)(
  'the daemon of root is killed and gets its disk again whatever another user tries to hold',
  { timeout: 120_000 },
  async () => {
    await using daemon = new DaemonProcess();
    const disk = TargetDisk.ram({ sizeBytes: 1 << 20 });
    const { server } = await embeddedTarget({ name: TARGET, luns: { 0: disk } });
    const beganMs = Date.now() - 1000;
    await daemon.start();
    const login = ['login', server.portal, TARGET, '--persistent'];
    const { UniqueSessionId } = await daemon.json<{ UniqueSessionId: string }>(...login);
    const locks = locksSince(beganMs);
    expect(locks.length).toBeGreaterThan(0);
    // The names of the locks follow from the target, so that any user can compute them.
    const program = join('/dev/shm', `squatter-${process.pid}.py`);
    copyFileSync(PROGRAM, program);
    chmodSync(program, 0o644);
    const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', '--pdeathsig', 'KILL'];
    const squatter = spawn('setpriv', [...nobody, 'python3', program, ...locks], {
      stdio: ['ignore', 'pipe', 'inherit'],
      // Not a Python of root's own, which another user cannot run.
      env: { PATH: '/usr/bin:/bin' },
    });
    try {
      const gone = once(squatter, 'exit').then(() => expect.fail('the other user is gone'));
      gone.catch(() => undefined);
      const tries = () => Promise.race([once(squatter.stdout, 'data'), gone]);
      await tries();
      await daemon.stop('SIGKILL');
      // What the killed process had is free: the other user is the first to try.
      for (let rounds = 0; rounds < 5; rounds += 1) await tries();
      await daemon.start('--wait-for', `${TARGET}/0`);
      const uri = `nbd+unix:///0?socket=${join(daemon.folder, 'nbd', `${UniqueSessionId}.sock`)}`;
      await nbdsh(uri, ["h.pwrite(b'A' * 512, 0)", 'h.flush()']);
    } finally {
      squatter.kill('SIGKILL');
      rmSync(program);
      await server.close();
    }
    expect(await daemon.stop()).toBe(0);
  },
);
