import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Workplace } from '../helpers/command-process.js';

const SCRIPT = fileURLToPath(new URL('../../packaging/boot/run-capsule', import.meta.url));

let place: Workplace;
let root: string;
const owners: ChildProcess[] = [];

beforeAll(async () => {
  place = await Workplace.make();
  root = place.file('root');
  for (const [path, text] of Object.entries({
    'app/dist/boot/main.mjs': 'program',
    'app/build/Release/iscsi_nbd.node': 'addon',
    // What the capsule's daemon would be started by: it leaves a sign that it ran as root here.
    'bin/@sh': '#!/busybox sh\necho "$@" >/sign\n',
  })) {
    await mkdir(dirname(`${root}/${path}`), { recursive: true });
    await writeFile(`${root}/${path}`, text);
  }
  await chmod(`${root}/bin/@sh`, 0o755);
  await copyFile('/usr/bin/busybox', `${root}/busybox`);
  await mkdir(`${root}/app/boot`);
  await copyFile(SCRIPT, `${root}/app/boot/run-capsule`);
  await mkdir(`${root}/proc`);
});
afterEach(async () => {
  for (const owner of owners.splice(0)) {
    const ended = once(owner, 'exit');
    owner.kill('SIGKILL');
    await ended;
  }
  await rm(`${root}/sign`, { force: true });
});
afterAll(() => place?.[Symbol.asyncDispose]());

/** A process that shows `root` as its root. */
async function startOwner(...command: readonly string[]): Promise<{ pid: number; start: string }> {
  const owner = spawn(command[0] ?? '', [...command.slice(1), '/busybox', 'sh', '-c', WAITS], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  owners.push(owner);
  await once(owner.stdout as NodeJS.ReadableStream, 'data');
  const pid = owner.pid ?? 0;
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return { pid, start: stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '' };
}
const WAITS = 'echo up; read -r line';

/** Runs the script where `text` is the file of an owner; what it mounts is in a namespace of its own. */
async function runCapsule(text: string): Promise<void> {
  const inside = `
    mount -t tmpfs none /run
    mkdir -p /run/iscsi-nbd/boot
    echo "$1" >/run/iscsi-nbd/boot/owner.7
    exec sh ${root}/app/boot/run-capsule --boot-from auto`;
  const child = spawn(
    'unshare',
    ['--mount', '--propagation', 'private', 'sh', '-ec', inside, 'sh', text],
    { stdio: 'ignore' },
  );
  await once(child, 'exit');
}

describe('run-capsule', () => {
  it('the program of a daemon of root that still runs is used again', async () => {
    const { pid, start } = await startOwner('chroot', root);
    await runCapsule(`${pid} ${start}`);
    expect(await readFile(`${root}/sign`, 'utf8')).toBe('/guard --boot-from auto\n');
  });

  it('a process that was started at another time is not taken for the daemon', async () => {
    const { pid, start } = await startOwner('chroot', root);
    await runCapsule(`${pid} ${Number(start) - 1}`);
    expect(existsSync(`${root}/sign`)).toBe(false);
  });

  it('a process of another user is not taken for the daemon', async () => {
    const { pid, start } = await startOwner('chroot', '--userspec=65534:65534', root);
    await runCapsule(`${pid} ${start}`);
    expect(existsSync(`${root}/sign`)).toBe(false);
  });

  it('a process in a user namespace of its own is not taken for the daemon', async () => {
    const { pid, start } = await startOwner('unshare', '--user', '--map-root-user', 'chroot', root);
    await runCapsule(`${pid} ${start}`);
    expect(existsSync(`${root}/sign`)).toBe(false);
  });
});
