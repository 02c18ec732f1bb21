import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import { judge, Workplace } from '../helpers/command-process.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { checked } from '../helpers/published-schema.js';
import { startTgt } from '../helpers/tgt.js';

const MIB = 1 << 20;
const NAME = 'iqn.2001-04.com.example:served';
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 120_000;

async function embedded(luns: Record<number, TargetDisk> = {}) {
  const disk = TargetDisk.ram({ sizeBytes: 8 * MIB });
  return { disk, ...(await embeddedTarget({ name: NAME, luns: { 0: disk, ...luns } })) };
}

/** What a client reads first: "NBDMAGIC", "IHAVEOPT" (NBD protocol, "Newstyle negotiation"). */
function greeting(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    socket.once('error', reject);
    socket.once('data', (bytes) => {
      socket.destroy();
      resolve(bytes.toString('latin1', 0, 16));
    });
  });
}

describe('serve', { timeout: SLOW }, () => {
  it('serve prints one line when it is ready; SIGTERM logs out, removes the socket, exits with 0', async () => {
    await using target = await embedded();
    await using place = await Workplace.make();
    const socket = place.file('disk.sock');
    await using serve = place.start(['serve', `${target.url}/0`, '--socket', socket]);
    expect(await serve.lines(1)).toEqual([
      `serving ${target.url}/0 at nbd+unix:///?socket=${socket} (8.0 MiB, 512-byte blocks)`,
    ]);
    expect(await greeting(socket)).toBe('NBDMAGICIHAVEOPT');
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
    serve.kill('SIGTERM');
    const { code, out } = await serve.result;
    expect(code).toBe(0);
    expect(out.trimEnd().split('\n')).toHaveLength(1);
    expect(target.node.stats.logoutReasons).toEqual([0]);
    expect(target.node.stats.violations).toEqual([]);
    expect(await place.content()).toEqual([]);
  });

  it('the socket is absent before the export is ready, and is complete when it appears', async () => {
    await using target = await embedded();
    await using place = await Workplace.make();
    const socket = place.file('disk.sock');
    // READ CAPACITY(16) answered late: the login is done, the export not ready.
    target.node.faults.onCommand = ({ opcode }) => (opcode === 0x9e ? { delayMs: 500 } : undefined);
    await using slow = place.start(['serve', `${target.url}/0`, '--socket', socket]);
    await expect.poll(() => target.node.stats.commandCount(0x9e), { timeout: SLOW }).toBe(1);
    expect(existsSync(socket)).toBe(false);
    await expect.poll(() => existsSync(socket), { timeout: SLOW, interval: 1 }).toBe(true);
    expect(await greeting(socket)).toBe('NBDMAGICIHAVEOPT');
    slow.kill('SIGINT');
    expect((await slow.result).code).toBe(0);
  });

  it('serve --json prints ready first, then each event; every LUN is an export named by its number', async () => {
    await using target = await embedded({ 3: TargetDisk.ram({ sizeBytes: 4 * MIB, serial: 'B' }) });
    await using place = await Workplace.make();
    const socket = place.file('disk.sock');
    const flags = ['--socket', socket, '--json', '--reconnect-interval', '0.2'];
    await using serve = place.start(['serve', target.url, ...flags]);
    const ready = (await serve.lines(2)).map((line) => JSON.parse(line));
    expect(ready).toMatchObject([
      { event: 'ready', lun: 0, socket, sizeBytes: 8 * MIB, blockSizeBytes: 512, readOnly: false },
      { event: 'ready', lun: 3, sizeBytes: 4 * MIB },
    ]);
    const { sessionId } = ready[0];
    expect(sessionId).toMatch(/^[0-9a-f]{16}$/);
    const list = JSON.parse(
      await judge('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${socket}`),
    );
    const names = list.exports.map((each: Record<string, unknown>) => each['export-name']);
    expect(names.sort()).toEqual(['0', '3']);
    target.server.dropConnections();
    const seen = () =>
      serve.out
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    const isBack = () => seen().filter((event) => event.event === 'deviceReleased').length === 2;
    await expect.poll(isBack, { timeout: SLOW }).toBe(true);
    const states = seen().filter((event) => event.event === 'sessionState');
    expect(states.map((event) => event.to)).toEqual(['loggedIn', 'reconnecting', 'loggedIn']);
    expect(seen().every((event) => event.sessionId === sessionId)).toBe(true);
    expect(seen().every((event) => !Number.isNaN(Date.parse(event.time)))).toBe(true);
    serve.kill('SIGINT');
    const { code, err } = await serve.result;
    expect(code).toBe(0);
    expect(err).toBe('');
    expect(seen().at(-1)).toMatchObject({ event: 'closed', sessionId });
    for (const line of serve.out.trimEnd().split('\n')) checked('event', line);
  });

  it('serve --run passes $uri and $socket, exits with the status of the command, leaves no file', async () => {
    await using target = await embedded();
    await using place = await Workplace.make();
    const command = 'nbdinfo --size "$uri"; test -S "$socket"; exit 42';
    const { code, out } = await place.run(['serve', `${target.url}/0`, '--run', command]);
    expect(out).toBe(`${8 * MIB}\n`);
    expect(code).toBe(42);
    expect(await place.content()).toEqual([]);
    expect(target.node.sessions).toEqual([]);
  });

  it('a command of --run that does not exist exits with 127, as in a shell', async () => {
    await using target = await embedded();
    await using place = await Workplace.make();
    const { code, err } = await place.run(['serve', `${target.url}/0`, '--run', 'no-such-thing']);
    expect(err).toContain('no-such-thing');
    expect(code).toBe(127);
    expect(await place.content()).toEqual([]);
  });

  it('a serve that is started again after a kill replaces its own dead socket', async () => {
    await using target = await embedded();
    await using place = await Workplace.make();
    const socket = place.file('disk.sock');
    const first = place.start(['serve', `${target.url}/0`, '--socket', socket]);
    await first.lines(1);
    first.kill('SIGKILL');
    await first.result;
    expect(existsSync(socket)).toBe(true);
    await using second = place.start(['serve', `${target.url}/0`, '--socket', socket]);
    await second.lines(1);
    expect(await greeting(socket)).toBe('NBDMAGICIHAVEOPT');
    second.kill('SIGINT');
    expect((await second.result).code).toBe(0);
    expect(await place.content()).toEqual([]);
  });
});

describe('serve with tgt behind it', { timeout: SLOW }, () => {
  it('the disk matches its backing file, for nbdinfo, nbdcopy and qemu-img', async () => {
    await using place = await Workplace.make();
    const file = place.file('disk.img');
    await writeFile(file, randomBytes(24 * MIB));
    await using tgt = await startTgt({ luns: [{ file }] });
    const socket = place.file('disk.sock');
    const uri = `nbd+unix:///?socket=${socket}`;
    await using serve = place.start(['serve', tgt.url(1), '--socket', socket]);
    await serve.lines(1);
    const info = JSON.parse(await judge('nbdinfo', '--json', uri)).exports[0];
    expect(info).toMatchObject({ 'export-size': 24 * MIB, is_read_only: false, can_flush: true });
    await judge('nbdcopy', uri, place.file('copy.img'));
    await judge('cmp', file, place.file('copy.img'));
    expect(await judge('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', file, uri)).toContain(
      'Images are identical',
    );
    serve.kill('SIGINT');
    expect((await serve.result).code).toBe(0);
    const connections = ['--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1'];
    expect((await tgt.adm(...connections)).trim()).toBe('');
  });

  it('fio writes blocks of 4 KiB to 512 KiB, 16 at a time, and verifies every one', async () => {
    await using place = await Workplace.make();
    const file = place.file('disk.img');
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: 32 * MIB }] });
    const fio = [
      'fio --name=verify --ioengine=nbd --uri="$uri" --rw=randwrite --bsrange=4k-512k',
      '--iodepth=16 --size=32m --verify=crc32c --verify_fatal=1 --do_verify=1 --output-format=terse',
    ].join(' ');
    const { code, err } = await place.run([
      'serve',
      tgt.url(1),
      '--run',
      `cd ${place.path} && ${fio}`,
    ]);
    expect(err).not.toMatch(/verify:|ioError/);
    expect(code).toBe(0);
  });

  it('the backing file holds the bytes that nbdcopy wrote', async () => {
    await using place = await Workplace.make();
    const file = place.file('disk.img');
    const wanted = place.file('wanted.img');
    await writeFile(wanted, randomBytes(16 * MIB));
    await using tgt = await startTgt({ luns: [{ file, sizeBytes: 16 * MIB, blockSize: 4096 }] });
    const copy = `nbdcopy --flush ${wanted} "$uri"`;
    const { code, err } = await place.run(['serve', tgt.url(1), '--run', copy]);
    expect(err).not.toContain('ioError');
    expect(code).toBe(0);
    await judge('cmp', wanted, file);
  });
});
