import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  LINUX_MARKER,
  makeLinuxImage,
  makeSectorImage,
  type SectorStep,
} from '../helpers/boot-image.js';
import { type CommandProcess, judge, Workplace } from '../helpers/command-process.js';
import { published } from '../helpers/published-schema.js';
import { startTgt, type Tgt, type TgtLun } from '../helpers/tgt.js';

const MIB = 1 << 20;
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 600_000;
/** Nested KVM may start and then stand still: everywhere the tests are the same, emulated. */
const TCG = ['--accel', 'tcg', '--timeout', '300'];
const SECTOR_BYTES = 512;

/** Boot sectors by name; the LUN of each is its place in the list. */
const SECTORS: readonly (readonly [name: string, steps: readonly SectorStep[]])[] = [
  ['writer', [{ writeSectorOne: 0x57 }, { say: 'written and read back\r\n' }]],
  ['prompt', [{ say: 'hello\r\n' }, { say: 'small login: ' }]],
  ['panic', [{ say: 'Kernel panic - not syncing: no init\r\n' }]],
  ['off', [{ say: 'bye\r\n' }, 'powerOff']],
  ['circle', [{ say: 'again\r\n' }, 'reset']],
  ['reader', [{ say: 'reading\r\n' }, { readSectors: 40 }, { say: 'done\r\n' }]],
];

let place: Workplace;
let tgt: Tgt;
const files = new Map<string, string>();
const luns = new Map<string, number>();

const url = (name: string) => tgt.url(luns.get(name));
const fileOf = (name: string) => files.get(name) ?? '';

beforeAll(async () => {
  place = await Workplace.make();
  const list: TgtLun[] = [];
  const add = (name: string, lun: TgtLun = {}) => {
    files.set(name, place.file(`${name}.img`));
    list.push({ file: fileOf(name), ...lun });
    luns.set(name, list.length);
  };
  for (const [name, steps] of SECTORS) {
    add(name);
    await makeSectorImage(fileOf(name), steps);
  }
  add('empty', { sizeBytes: MIB });
  add('protected', { sizeBytes: MIB, readOnly: true });
  add('large blocks', { sizeBytes: MIB, blockSize: 4096 });
  await mkdir(place.file('parts'));
  add('linux');
  await makeLinuxImage(fileOf('linux'), place.file('parts'));
  tgt = await startTgt({ luns: list });
}, SLOW);

afterAll(async () => {
  await tgt?.stop();
  await place?.[Symbol.asyncDispose]();
});

function checksum(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}

/** Sector 1, if it is filled with one byte. */
async function sectorOne(file: string): Promise<number | null> {
  const bytes = (await readFile(file)).subarray(SECTOR_BYTES, 2 * SECTOR_BYTES);
  return bytes.every((byte) => byte === bytes[0]) ? (bytes[0] ?? null) : null;
}

function objects(out: string): Record<string, unknown>[] {
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** What a command run in `own` leaves; the images are elsewhere. */
async function run(args: readonly string[], options = {}) {
  await using own = await Workplace.make();
  const result = await own.run(['boot-test', ...args], options);
  return { ...result, left: await own.content() };
}

/** The process whose parent, or parent's parent, is ours and which runs QEMU. */
function qemuOf(parent: number): number | null {
  const children = `/proc/${parent}/task/${parent}/children`;
  if (!existsSync(children)) return null;
  for (const child of readFileSync(children, 'utf8').split(' ').filter(Boolean).map(Number)) {
    if (readFileSync(`/proc/${child}/comm`, 'utf8').startsWith('qemu-system')) return child;
  }
  return null;
}

function isAlive(pid: number): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !/^\d+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** Waits for a line of JSON on standard output. */
async function seen(
  process: CommandProcess,
  wanted: (event: Record<string, unknown>) => boolean,
): Promise<void> {
  for (let count = 1; ; count += 1) {
    const lines = await process.lines(count);
    if (objects(lines.join('\n')).some(wanted)) return;
  }
}

describe('boot-test of a Linux', { timeout: SLOW }, () => {
  const said = ['--expect', `^${LINUX_MARKER}$`];

  it('two tests pass at once, and the LUN is unchanged although the system writes', async () => {
    const before = checksum(fileOf('linux'));
    const args = [url('linux'), ...said, ...TCG];
    const results = await Promise.all([run(args), run(args)]);
    for (const { code, out, err, left } of results) {
      expect(err).toMatch(/^booting .*\(41\.0 MiB\)\n {2}in QEMU .*emulated.*BIOS.*thrown away\n$/);
      expect(out).toMatch(
        new RegExp(`^passed: ${url('linux')} said "${LINUX_MARKER}" after .* s\\n$`),
      );
      expect(code).toBe(0);
      expect(left).toEqual([]);
    }
    expect(checksum(fileOf('linux'))).toBe(before);
  });

  it('the test passes with --firmware uefi', async () => {
    const { code, out } = await run([url('linux'), '--firmware', 'uefi', ...said, ...TCG]);
    expect(out).toMatch(/^passed: /);
    expect(code).toBe(0);
  });
});

describe('boot-test', { timeout: SLOW }, () => {
  const written = ['--expect', 'written and read back', ...TCG];

  it.each(['virtio', 'scsi', 'sata'])(
    'the LUN is a %s disk, and no write of the system reaches it',
    async (disk) => {
      const before = checksum(fileOf('writer'));
      const { code, out, left } = await run([url('writer'), '--disk', disk, ...written]);
      expect(out).toMatch(/^passed: .*said "written and read back"/);
      expect(code).toBe(0);
      expect(checksum(fileOf('writer'))).toBe(before);
      expect(left).toEqual([]);
    },
  );

  it('the file of --keep-overlay holds the writes of the system, over the LUN as backing file', async () => {
    const overlay = place.file('kept.qcow2');
    const { code, err } = await run([url('writer'), '--keep-overlay', overlay, ...written]);
    expect(err).toContain(`what the system wrote is in ${overlay}`);
    expect(code).toBe(0);
    const info = JSON.parse(await judge('qemu-img', 'info', '-U', '--output=json', overlay));
    expect(info).toMatchObject({ format: 'qcow2', 'backing-filename': url('writer') });
    const read = ['-c', 'read -P 0x57 512 512', '-c', 'read -P 0xaa 511 1'];
    expect(await judge('qemu-io', '-r', ...read, overlay)).not.toContain('failed');
    expect(await sectorOne(fileOf('writer'))).toBe(0);
    const again = await run([url('writer'), '--keep-overlay', overlay, ...written]);
    expect(again.err).toContain('exists already');
    expect(again.code).toBe(7);
  });

  it('the option --write boots the LUN itself, and the writes of the system are on it', async () => {
    const { code, err } = await run([url('writer'), '--write', ...written]);
    expect(err).toContain('what it writes stays on the LUN');
    expect(code).toBe(0);
    expect(await sectorOne(fileOf('writer'))).toBe(0x57);
  });

  it('the session is read-only without --write, so that no client can write', async () => {
    const before = checksum(fileOf('prompt'));
    await using own = await Workplace.make();
    const flags = ['--expect', 'never', '--json', '--console'];
    await using process = own.start(['boot-test', url('prompt'), ...flags, ...TCG]);
    await seen(process, ({ line }) => line === 'hello');
    // Nor does the machine know our secrets.
    const environment = readFileSync(`/proc/${qemuOf(process.pid)}/environ`, 'utf8');
    expect(environment).toBe('PATH=/usr/bin:/bin\0LC_ALL=C\0');
    const uri = String(objects(process.out)[0]?.['uri']);
    const info = JSON.parse(await judge('nbdinfo', '--json', uri));
    expect(info.exports[0]).toMatchObject({ is_read_only: true });
    // Without strict mode libnbd sends what the export has said it does not take.
    const write = 'h.set_strict_mode(0)\nh.connect_uri("$1")\nh.pwrite(b"x" * 512, 0)';
    const attempt = judge('/usr/bin/python3', '-m', 'nbd', '-c', write.replace('$1', uri));
    await expect(attempt).rejects.toThrow(/Operation not permitted/);
    process.kill('SIGTERM');
    await process.result;
    expect(checksum(fileOf('prompt'))).toBe(before);
  });

  it('the default expects a login prompt, which is a line that has not ended', async () => {
    const { code, out, err } = await run([url('prompt'), ...TCG]);
    expect(out).toMatch(/^passed: \S+ said "small login:" after \d+\.\d s\n$/);
    expect(err.split('\n')).toHaveLength(3);
    expect(code).toBe(0);
  });

  it('the output of --json is ready, bootStarted, the console with --console, and the verdict', async () => {
    const { code, out, err } = await run([url('prompt'), '--json', '--console', ...TCG]);
    const events = objects(out);
    const own = ['bootStarted', 'console', 'verdict'];
    for (const event of events.slice(1)) {
      published(own.includes(String(event['event'])) ? 'boot-test' : 'event').parse(event);
    }
    const lun = luns.get('prompt');
    expect(events[0]).toMatchObject({ event: 'ready', lun, readOnly: true, sizeBytes: 64 * MIB });
    expect(events.find(({ event }) => event === 'bootStarted')).toMatchObject({
      accelerator: 'tcg',
      firmware: 'bios',
      write: false,
    });
    expect(events).toContainEqual(expect.objectContaining({ event: 'console', line: 'hello' }));
    expect(events.at(-1)).toMatchObject({
      event: 'verdict',
      lun,
      sessionId: events[0]?.['sessionId'],
      passed: true,
      reason: 'expected',
      line: expect.stringMatching(/^small login:/),
      exitCode: 0,
    });
    expect(err).toBe('');
    expect(code).toBe(0);
  });

  it('the machine has the hardware of the options', async () => {
    const wishes = ['--memory', '256M', '--cpus', '2', '--cpu', 'qemu64', '--network', 'user'];
    await using own = await Workplace.make();
    const args = ['boot-test', url('prompt'), '--expect', 'never', '--json', '--console'];
    await using process = own.start([...args, ...wishes, ...TCG]);
    await seen(process, ({ line }) => line === 'hello');
    const started = objects(process.out).find(({ event }) => event === 'bootStarted');
    expect(started).toMatchObject({ memoryMiB: 256, cpus: 2 });
    const line = readFileSync(`/proc/${qemuOf(process.pid)}/cmdline`, 'utf8').replaceAll('\0', ' ');
    expect(line).toContain('-cpu qemu64 -smp 2 -m 256M ');
    expect(line).toContain('-nic user,');
    process.kill('SIGTERM');
    await process.result;
  });

  it.each([
    ['empty', 'a disk that no firmware boots', /said "Boot failed: not a bootable disk"/],
    ['panic', 'a kernel that panics', /said "Kernel panic - not syncing: no init"/],
    ['off', 'a system that switches itself off', /switched itself off .* before it said \/login:/],
    ['circle', 'a system that starts over and over', /started 6 times anew/],
  ])(
    'LUN "%s": %s fails the test, with the last lines of the console and status 1',
    async (name, _, why) => {
      const { code, out, err, left } = await run([url(name), ...TCG]);
      expect(out).toMatch(/^failed: [^\n]*\n$/);
      expect(out).toMatch(why);
      expect(err).toMatch(/the console said last:\n {2}SeaBIOS/);
      expect(err).not.toContain('\x1b');
      expect(code).toBe(1);
      expect(left).toEqual([]);
    },
  );

  it('the patterns of --fail-regex replace those for panics', async () => {
    const { code, out } = await run([url('prompt'), '--fail-regex', '^hell', ...TCG]);
    expect(out).toMatch(/^failed: .*said "hello" .*, and not yet \/login:\/\n$/);
    expect(code).toBe(1);
  });

  it('the test exits with status 33 at the timeout, with a picture of the screen', async () => {
    const png = place.file('screen.png');
    const args = [url('prompt'), '--expect', 'never', '--timeout', '5', '--screenshot', png];
    const { code, out, err } = await run([...args, '--accel', 'tcg']);
    expect(out).toMatch(/^timed out: .* did not say \/never\/ within 5 s/);
    expect(err).not.toContain('warning');
    expect(code).toBe(33);
    const bytes = await readFile(png);
    // PNG (ISO/IEC 15948): the signature, then IHDR with width and height.
    expect(bytes.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n');
    expect([bytes.readUInt32BE(16), bytes.readUInt32BE(20)]).toEqual([720, 400]);
  });

  it('an outage is a pause: the target dies and returns, and the system sees no error', async () => {
    await using own = await Workplace.make();
    const interval = ['--reconnect-interval', '0.2'];
    const args = ['boot-test', url('reader'), '--expect', '^done$', '--json', '--console'];
    await using process = own.start([...args, ...interval, ...TCG]);
    await seen(process, ({ event, line }) => event === 'console' && line === 'reading');
    await tgt.kill();
    await seen(process, ({ event }) => event === 'deviceHeld');
    await tgt.restart();
    const { code, out } = await process.result;
    const events = objects(out);
    expect(events.map(({ to }) => to)).toEqual(expect.arrayContaining(['reconnecting']));
    expect(events.at(-1)).toMatchObject({ event: 'verdict', passed: true, line: 'done' });
    expect(code).toBe(0);
  });

  it('a target that stays away is no fault of the image: status 4', async () => {
    const file = place.file('lost.img');
    await makeSectorImage(file, [{ say: 'reading\r\n' }, { readSectors: 60 }]);
    await using lost = await startTgt({ luns: [{ file }] });
    await using own = await Workplace.make();
    const times = ['--reconnect-interval', '0.2', '--removal-latency', '0.5'];
    const args = ['boot-test', lost.url(), '--json', '--console', ...times, ...TCG];
    await using process = own.start(args);
    await seen(process, ({ event, line }) => event === 'console' && line === 'reading');
    await lost.kill();
    const { code, err } = await process.result;
    expect(JSON.parse(err)).toMatchObject({ event: 'error', exitCode: 4 });
    expect(err).toContain('nothing is known of the image');
    expect(code).toBe(4);
    expect(await own.content()).toEqual([]);
  });
});

describe('boot-test that is interrupted', { timeout: SLOW }, () => {
  const forever = ['--expect', 'never', '--json', '--console', ...TCG];
  const isUp = (event: Record<string, unknown>) => event['line'] === 'hello';

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('an end by %s leaves no QEMU, no session and no file', async (signal, status) => {
    await using own = await Workplace.make();
    await using process = own.start(['boot-test', url('prompt'), ...forever]);
    await seen(process, isUp);
    const qemu = qemuOf(process.pid) ?? -1;
    expect(isAlive(qemu)).toBe(true);
    process.kill(signal);
    expect((await process.result).code).toBe(status);
    expect(isAlive(qemu)).toBe(false);
    expect(await own.content()).toEqual([]);
    const connections = ['--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1'];
    expect((await tgt.adm(...connections)).trim()).toBe('');
  });

  it('two signals at once leave no file either', async () => {
    await using own = await Workplace.make();
    await using process = own.start(['boot-test', url('prompt'), ...forever]);
    await seen(process, isUp);
    process.kill('SIGTERM');
    process.kill('SIGINT');
    await process.result;
    expect(await own.content()).toEqual([]);
  });

  it('QEMU has no capabilities, cannot get any, and a filter of system calls, even if root runs it', async () => {
    await using own = await Workplace.make();
    await using running = own.start(['boot-test', url('prompt'), ...forever]);
    await seen(running, isUp);
    const status = readFileSync(`/proc/${qemuOf(running.pid)}/status`, 'utf8');
    expect(status).toMatch(/^CapEff:\t0+$/m);
    if (process.geteuid?.() === 0) expect(status).toMatch(/^CapBnd:\t0+$/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(status).toMatch(/^Seccomp:\t2$/m);
    running.kill('SIGTERM');
    await running.result;
  });

  it('a SIGKILL leaves no QEMU, and nothing of the size of an overlay', async () => {
    await using own = await Workplace.make();
    await using process = own.start(['boot-test', url('prompt'), ...forever]);
    await seen(process, isUp);
    const qemu = qemuOf(process.pid) ?? -1;
    expect(isAlive(qemu)).toBe(true);
    process.kill('SIGKILL');
    await process.result;
    await expect.poll(() => isAlive(qemu), { timeout: 60_000 }).toBe(false);
    const left = (await own.content()).flatMap((name) => readdirSync(own.file(name)));
    expect(left).toEqual(['nbd.sock']);
  });

  it('the death of QEMU is a failure with that reason', async () => {
    await using own = await Workplace.make();
    await using running = own.start(['boot-test', url('prompt'), ...forever]);
    await seen(running, isUp);
    process.kill(qemuOf(running.pid) ?? 0, 'SIGKILL');
    const { code, out } = await running.result;
    expect(objects(out).at(-1)).toMatchObject({ event: 'verdict', reason: 'qemuEnded' });
    expect(code).toBe(1);
  });
});

describe('boot-test: errors before the boot', { timeout: SLOW }, () => {
  const cases: readonly (readonly [flags: string, lun: string, code: number, words: RegExp])[] = [
    ['--expect (', 'empty', 7, /--expect '\(' is no regular expression.*: Unterminated group/],
    ['--fail-regex [', 'empty', 7, /--fail-regex '\[' is no regular expression/],
    ['--timeout 0', 'empty', 7, /--timeout must be a number of seconds/],
    ['--timeout 1e9', 'empty', 7, /--timeout must be a number of seconds/],
    ['--memory 1', 'empty', 7, /--memory must be a number of MiB from 16/],
    ['--memory 4T', 'empty', 7, /--memory must be .* not '4T'/],
    ['--cpus 0', 'empty', 7, /--cpus must be a number from 1/],
    ['--cpu max;id', 'empty', 7, /--cpu 'max;id' is no model/],
    ['--cpu no-such-model', 'empty', 1, /QEMU does not start: .*no-such-model/],
    ['--firmware coreboot', 'empty', 7, /--firmware must be one of/],
    ['--disk floppy', 'empty', 7, /--disk must be one of/],
    ['--accel hvf', 'empty', 7, /--accel must be one of/],
    ['--network tap', 'empty', 7, /--network must be one of/],
    ['--screenshot /no/such/folder/a.png', 'empty', 7, /--screenshot: nothing can be written in/],
    ['--screenshot /tmp', 'empty', 7, /--screenshot: \/tmp is a folder/],
    ['--screenshot /etc/passwd', 'empty', 7, /--screenshot: \/etc\/passwd exists already/],
    ['--keep-overlay /no/such/folder/a', 'empty', 7, /--keep-overlay: nothing can be written in/],
    ['--write --keep-overlay /tmp/a', 'empty', 7, /exclude each other/],
    ['--screenshot /tmp/no-a --keep-overlay /tmp/no-a', 'empty', 7, /name the same file/],
    ['--write --read-only', 'empty', 7, /--write and the option readOnly contradict/],
    ['--session-type data', 'empty', 7, /makes a session of type boot/],
    ['--write', 'protected', 1, /LUN \d+ is write-protected\. Without --write/],
    ['--firmware bios', 'large blocks', 7, /blocks of 4096 bytes.*use --firmware uefi/],
  ];

  it.each(cases)(
    'the flags %s (LUN %s) are rejected with status %d',
    async (flags, lun, status, words) => {
      const { code, out, err, left } = await run([url(lun), ...flags.split(' ')]);
      expect(err).toMatch(/^iscsi-nbd: [^\n]+\.\n$/);
      expect(err).toMatch(words);
      expect(out).toBe('');
      expect(code).toBe(status);
      expect(left).toEqual([]);
    },
  );

  it('an empty value is rejected, as it may be a variable that is not set', async () => {
    for (const flag of ['--expect', '--fail-regex', '--screenshot', '--keep-overlay']) {
      const { code, err } = await run([url('empty'), `${flag}=`]);
      expect(err).toContain(`${flag} is empty`);
      expect(code).toBe(7);
    }
  });

  it('a URL without a LUN is valid if there is one disk; otherwise the error names the disks', async () => {
    const { code, err } = await run([url('empty').replace(/\/\d+$/, '')]);
    expect(err).toMatch(/has 10 disks \(LUN 1, 2, .*, 10\), and one is booted/);
    expect(code).toBe(7);
  });

  it.each([
    ['qemu-system-x86_64', 'qemu-system-x86', []],
    ['qemu-img', 'qemu-utils', ['qemu-system-x86_64']],
  ])('a machine without %s gets status 27 and the package %s', async (what, name, there) => {
    const folder = place.file(`without-${what}`);
    await mkdir(folder);
    for (const program of ['setpriv', ...there]) {
      const path = execFileSync('sh', ['-c', `command -v ${program}`])
        .toString()
        .trim();
      await symlink(path, `${folder}/${program}`);
    }
    const { code, err } = await run([url('empty')], { environment: { PATH: folder } });
    expect(err).toContain(`boot-test needs ${what}`);
    expect(err).toContain(`apt-get install ${name}`);
    expect(code).toBe(27);
  });
});
