import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../src/config/log.js';
import { SystemdNotify } from '../../src/daemon/systemd-notify.js';
import { native } from '../../src/io/native.js';

/** Stands where systemd does: prints the sender and the text of each datagram as a line of JSON. */
const MANAGER = `
import json, socket, struct, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
manager.bind(sys.argv[1].replace('@', '\\0', 1) if sys.argv[1][0] == '@' else sys.argv[1])
print(flush=True)
if len(sys.argv) > 2: sys.stdin.readline()
while True:
    text, extra, _, _ = manager.recvmsg(65536, 1024)
    pid = struct.unpack('3i', extra[0][2])[0]
    print(json.dumps({'pid': pid, 'text': text.decode()}), flush=True)
`;

let directory: string;
let manager: ChildProcess | null = null;
let output = '';
const logged: string[] = [];
const stream = new PassThrough().on('data', (line) => logged.push(String(line)));
const responded = async () => undefined;
const log = createLog({ level: 'warn', pretty: false, stream });

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'notify-'));
  output = '';
  logged.length = 0;
});
afterEach(async () => {
  if (manager?.kill('SIGKILL')) await once(manager, 'close');
  manager = null;
  rmSync(directory, { recursive: true, force: true });
});

async function startManager(path: string, ...flags: readonly string[]): Promise<void> {
  const child = spawn('python3', ['-c', MANAGER, path, ...flags]);
  manager = child;
  child.stdout.on('data', (bytes) => {
    output += bytes;
  });
  await once(child.stdout, 'data');
}

/** The messages that the manager has received, once there are `count`. */
async function told(count: number): Promise<{ pid: number; text: string }[]> {
  const lines = () => output.split('\n').filter((line) => line !== '');
  while (lines().length < count) await sleep(10);
  return lines().map((line) => JSON.parse(line));
}

describe('SystemdNotify (sd_notify(3))', () => {
  for (const kind of ['path', 'abstract']) {
    it(`the process itself reports its start, readiness and end to systemd (${kind})`, async () => {
      const path = kind === 'path' ? join(directory, 'notify') : `@${directory}/notify`;
      await startManager(path);
      const systemd = new SystemdNotify({ NOTIFY_SOCKET: path }, log);
      await systemd.starting(180_000);
      await systemd.status('waiting for iqn.x/1');
      await systemd.ready('serving', responded);
      await systemd.stopping();
      const { pid } = process;
      expect(await told(4)).toEqual([
        { pid, text: 'EXTEND_TIMEOUT_USEC=240000000' },
        { pid, text: 'STATUS=waiting for iqn.x/1' },
        { pid, text: 'READY=1\nSTATUS=serving' },
        { pid, text: 'STOPPING=1\nSTATUS=ending' },
      ]);
    });
  }

  it('the watchdog is notified more often than its time, until the end', async () => {
    const path = join(directory, 'notify');
    await startManager(path);
    const systemd = new SystemdNotify({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '100000' }, log);
    await systemd.ready('serving', responded);
    const messages = await told(4);
    expect(messages.slice(1).map(({ text }) => text)).toEqual(Array(3).fill('WATCHDOG=1'));
    await systemd.stopping();
    await sleep(150);
    expect((await told(5)).at(-1)?.text).toMatch(/^STOPPING=1/);
  });

  it('the watchdog is not notified while a thread that serves devices hangs', async () => {
    const path = join(directory, 'notify');
    await startManager(path);
    const systemd = new SystemdNotify({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '100000' }, log);
    let isHanging = true;
    await systemd.ready('serving', () => (isHanging ? new Promise(() => undefined) : responded()));
    await sleep(300);
    expect(await told(1)).toMatchObject([{ text: expect.stringMatching(/^READY=1/) }]);
    isHanging = false;
    expect((await told(2))[1]?.text).toBe('WATCHDOG=1');
    await systemd.stopping();
  });

  it('the watchdog of another process is not notified (WATCHDOG_PID)', async () => {
    const path = join(directory, 'notify');
    await startManager(path);
    const other = { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' };
    const systemd = new SystemdNotify({ NOTIFY_SOCKET: path, ...other }, log);
    await systemd.ready('serving', responded);
    await sleep(100);
    await systemd.stopping();
    expect((await told(2)).map(({ text }) => text.split('\n')[0])).toEqual([
      'READY=1',
      'STOPPING=1',
    ]);
  });

  it('each message is delivered although the queue of systemd was full meanwhile', async () => {
    const path = join(directory, 'notify');
    await startManager(path, 'slow');
    let queued = 0;
    while (native.sendNotify(path, 'STATUS=noise') === 0) queued += 1;
    const ready = new SystemdNotify({ NOTIFY_SOCKET: path }, log).ready('serving', responded);
    manager?.stdin?.write('\n');
    await ready;
    const messages = await told(queued + 1);
    expect(messages.at(-1)?.text).toBe('READY=1\nSTATUS=serving');
    expect(logged).toEqual([]);
  });

  it('the text of a status adds no further assignment', async () => {
    const path = join(directory, 'notify');
    await startManager(path);
    await new SystemdNotify({ NOTIFY_SOCKET: path }, log).status('a\nMAINPID=1\0');
    expect((await told(1)).map(({ text }) => text)).toEqual(['STATUS=a MAINPID=1 ']);
  });

  it('a process that systemd did not start sends no message', async () => {
    await new SystemdNotify({}, log).ready('serving', responded);
    expect(logged).toEqual([]);
  });

  it('an invalid or absent address causes a warning and nothing else', async () => {
    const addresses = ['relative', '@', '/', join(directory, 'absent'), `/${'x'.repeat(107)}`];
    for (const address of addresses) {
      logged.length = 0;
      await new SystemdNotify({ NOTIFY_SOCKET: address }, log).ready('serving', responded);
      expect(logged, address).toHaveLength(1);
    }
  });
});
