import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type LockPlace, ProcessLock } from '../../src/io/process-lock.js';

const NOBODY = 65534;
const run = promisify(execFile);
let folder = '';
let root: LockPlace;
let user: LockPlace;

/** Two users with directories of their own: what counts is whose they are made to be. */
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'locks-'));
  chmodSync(folder, 0o711);
  const uid = process.geteuid?.() ?? 0;
  const ofRoot = join(folder, 'root', 'locks');
  root = { uid, ofRoot, own: ofRoot };
  user = { uid, ofRoot, own: join(folder, 'user', 'locks') };
});

afterEach(() => rmSync(folder, { recursive: true }));

const files = ({ own }: LockPlace) => (existsSync(own) ? readdirSync(own) : []);

describe('a lock of a process', () => {
  it('no other process gets it while it is held, and the holder is reported', () => {
    const lock = ProcessLock.take('disk', '17 me', root);
    expect(ProcessLock.take('disk', '18 other', root)).toBe(null);
    expect(ProcessLock.holderOf('disk', root)).toBe('17 me');
    expect(ProcessLock.take('another disk', '', root)).not.toBe(null);
    lock?.release();
    expect(ProcessLock.holderOf('disk', root)).toBe('');
    const next = ProcessLock.take('disk', '', root);
    expect(next).not.toBe(null);
    next?.release();
  });

  it('a release leaves no file', () => {
    ProcessLock.take('disk', '', root)?.release();
    expect(files(root)).toEqual([]);
  });

  it('a file that a killed process left blocks no other process', async () => {
    ProcessLock.take('disk', '', root);
    const path = join(root.own, files(root)[0] ?? '');
    rmSync(path);
    const holding = ['--exclusive', path, 'sh', '-c', 'echo has it; exec sleep 60'];
    const holder = spawn('flock', holding, { detached: true });
    await once(holder.stdout, 'data');
    expect(ProcessLock.take('disk', '', root)).toBe(null);
    process.kill(-(holder.pid ?? 0), 'SIGKILL');
    await once(holder, 'exit');
    await vi.waitFor(() => expect(ProcessLock.take('disk', 'next', root)).not.toBe(null));
    expect(ProcessLock.holderOf('disk', root)).toBe('next');
  });

  it('every version of Node makes the same lock of a name', async () => {
    const lock = ProcessLock.take('disk', '', root);
    const [file = ''] = files(root);
    // What another program finds, whatever it is written in.
    const { stdout } = await run('sh', ['-c', 'printf disk | sha256sum']);
    expect(file).toBe(stdout.slice(0, 32));
    await expect(run('flock', ['--nonblock', join(root.own, file), 'true'])).rejects.toThrow();
    lock?.release();
  });
});

describe('locks of several users', () => {
  it('a user gives way to root, and sees which process has it', () => {
    const lock = ProcessLock.take('disk', '17 me', root);
    const plain = { ...user, uid: NOBODY };
    expect(ProcessLock.holderOf('disk', plain)).toBe(String(process.pid));
    lock?.release();
    expect(ProcessLock.holderOf('disk', plain)).toBe('');
  });

  it.runIf(process.geteuid?.() === 0)(
    'no other user can hold a lock of root, nor keep it from taking one',
    async () => {
      const name = randomBytes(8).toString('hex');
      ProcessLock.take(name, '', root)?.release();
      const left = ProcessLock.take('left by a killed process', '', root);
      const [file = ''] = files(root);
      const as = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups', 'flock'];
      for (const path of [join(root.own, file), join(root.own, 'new'), root.own]) {
        await expect(
          run('setpriv', [...as, '--nonblock', '--shared', path, 'true']),
        ).rejects.toThrow(/Permission denied/);
      }
      left?.release();
      // The name that such a lock once had in the abstract namespace is nothing any more.
      const server = createServer();
      await new Promise<void>((resolve) => server.listen({ path: `\0iscsi-nbd/${name}` }, resolve));
      const lock = ProcessLock.take(name, '', root);
      expect(lock).not.toBe(null);
      lock?.release();
      await new Promise((resolve) => server.close(resolve));
    },
  );

  it.each([
    ['that others can write to', () => chmodSync(user.own, 0o777)],
    ['that is a link', () => moved(user.own)],
  ])('a directory is refused in words %s', (_what, spoil) => {
    ProcessLock.take('disk', '', user)?.release();
    spoil();
    expect(() => ProcessLock.take('disk', '', user)).toThrow(
      `${user.own} is no directory that only user ${user.uid} can write to`,
    );
  });

  it('a directory that cannot be made is reported with the next step', () => {
    mkdirSync(folder, { recursive: true });
    const place = { ...user, own: '/proc/iscsi-nbd/locks' };
    expect(() => ProcessLock.take('disk', '', place)).toThrow(
      /the lock \/proc\/iscsi-nbd\/locks\/[0-9a-f]{32} cannot be taken \(ENOENT\)/,
    );
  });
});

function moved(path: string): void {
  rmSync(path, { recursive: true });
  symlinkSync(folder, path);
}
