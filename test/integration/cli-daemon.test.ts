/**
 * Every command that talks to a daemon, run as a process, for people and for programs, with a real
 * target (tgt) behind it: exit status, standard output and standard error.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { judge } from '../helpers/command-process.js';
import { checked } from '../helpers/published-schema.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { CLI, DaemonProcess, type Outcome } from './daemon-process.js';

const MIB = 1 << 20;
/** The machine of a test may be busy; nothing here is about speed. */
const SLOW = 240_000;
const DISK = 'iqn.2024-01.com.example:cli-disk';
const OTHER = 'iqn.2024-01.com.example:cli-other';
const CHAP = 'iqn.2024-01.com.example:cli-chap';
const SECRET = 'a secret of a node record';
const ID = /^[0-9a-f]{16}$/;
const exec = promisify(execFile);
/** The report of a failure to a person: one paragraph. */
const PARAGRAPH = /^iscsi-nbd: [^\n]+\.\n$/;

let tgt: Tgt;
let daemon: DaemonProcess;
let portal: string;

beforeAll(async () => {
  tgt = await startTgt({
    iqn: DISK,
    luns: [{ sizeBytes: 8 * MIB }],
    targets: [
      { iqn: OTHER, luns: [{ sizeBytes: MIB }] },
      {
        iqn: CHAP,
        luns: [{ sizeBytes: MIB }],
        chap: { user: 'importer', password: SECRET },
      },
    ],
  });
  portal = `127.0.0.1:${tgt.port}`;
  daemon = new DaemonProcess();
  await daemon.start('--json');
}, SLOW);

afterAll(async () => {
  await daemon[Symbol.asyncDispose]();
  await tgt.stop();
});

function cli(...args: readonly string[]): Promise<Outcome> {
  return daemon.runProcess(...args);
}

/** Nothing is said on standard error by what works. */
function expectGood({ code, err }: Outcome): void {
  expect(err).toBe('');
  expect(code).toBe(0);
}

/** The same command for people and for programs. */
async function both(schema: string, ...args: readonly string[]) {
  const [text, json] = await Promise.all([cli(...args), cli(...args, '--json')]);
  expectGood(text);
  expectGood(json);
  return { lines: text.out.trimEnd().split('\n'), value: checked(schema, json.out) };
}

/** A command that fails the same way for people and for programs. */
async function expectRefused(code: number, words: RegExp, ...args: readonly string[]) {
  // The second run is not worth a process of its own.
  const [text, json] = await Promise.all([cli(...args), daemon.run(...args, '--json')]);
  expect(text.err).toMatch(PARAGRAPH);
  expect(text.err).toMatch(words);
  expect(checked('error', json.err)).toMatchObject({ exitCode: code });
  expect([text.code, text.out, json.code, json.out]).toEqual([code, '', code, '']);
}

async function sessionOf(target: string): Promise<SessionView> {
  return daemon.json<SessionView>('session', target);
}

describe('the commands of the daemon', { timeout: SLOW }, () => {
  it('daemon --json prints one ready line, and a second daemon exits with 28', async () => {
    expect(checked('daemon-ready', daemon.out)).toMatchObject({
      event: 'ready',
      control: daemon.control,
      pid: daemon.pid,
    });
    const args = ['--control', join(daemon.folder, 'd.sock'), '--log-level', 'silent'];
    const state = ['--state-directory', join(daemon.folder, 'state')];
    const second = await cli('daemon', ...args, ...state);
    expect([second.code, second.out]).toEqual([28, '']);
    expect(second.err).toMatch(PARAGRAPH);
    expect(second.err).toContain(`Another daemon (process ${daemon.pid}) owns`);
  });

  it('login prints the session and its disks; a repeated login prints the same session', async () => {
    const first = await cli('login', portal, DISK, '--removal-latency', '20');
    expectGood(first);
    const [session = '', disk] = first.out.trimEnd().split('\n');
    const id = /^session ([0-9a-f]{16}) to (\S+) is logged in$/.exec(session);
    expect(id?.[2]).toBe(DISK);
    const socket = join(daemon.folder, 'nbd', `${id?.[1]}.sock`);
    expect(disk).toBe(`nbd+unix:///1?socket=${socket}  8.0 MiB  LUN 1`);
    const again = await cli('login', portal, DISK, '--json');
    expectGood(again);
    const login = checked('login', again.out);
    expect(login).toMatchObject({ UniqueSessionId: id?.[1], existed: true });
    expect((await cli('login', portal, DISK)).out).toContain('is logged in already');
  });

  it('login reports why it fails', async () => {
    await expectRefused(19, /0203 Not found/, 'login', portal, 'iqn.2024-01.com.example:none');
    await expectRefused(24, /0201 .*CHAP/, 'login', portal, CHAP);
    await expectRefused(
      15,
      /already, with removalLatencySeconds 20/,
      ...['login', portal, DISK, '--removal-latency', '21'],
    );
    await expectRefused(
      15,
      /Process \d+ has LUN 1 of .* already, in session/,
      ...['login', portal, DISK, '--type', 'boot'],
    );
    await expectRefused(4, /ECONNREFUSED/, 'login', '127.0.0.1:1', OTHER);
  });

  it('a LUN open for writing in the daemon is served elsewhere only with --read-only or --shared', async () => {
    const serve = ['serve', `iscsi://${portal}/${DISK}/1`, '--run', 'nbdinfo --size "$uri"'];
    const words = new RegExp(`Process ${daemon.pid} has LUN 1 of ${DISK} already.*--read-only`);
    const [refused, readOnly, shared] = await Promise.all([
      cli(...serve),
      cli(...serve, '--read-only'),
      cli(...serve, '--shared'),
    ]);
    expect([refused.code, refused.out]).toEqual([15, '']);
    expect(refused.err).toMatch(words);
    expect(readOnly).toMatchObject({ code: 0, out: `${8 * MIB}\n` });
    expect(shared).toMatchObject({ code: 0, out: `${8 * MIB}\n` });
  });

  it('sessions lists the sessions', async () => {
    const { lines, value } = await both('sessions', 'sessions');
    expect(lines[0]).toMatch(/^SESSION +STATE +TYPE +PORTAL +LUNS +TARGET$/);
    const [id = '', ...row] = (lines[1] ?? '').split(/ +/);
    expect(id).toMatch(ID);
    expect(row).toEqual(['loggedIn', 'data', portal, '1', DISK]);
    expect(value).toMatchObject({ sessions: [{ UniqueSessionId: id, TargetiSCSIName: DISK }] });
  });

  it('session shows fields, keys and options; its addresses are those of the connection', async () => {
    const { lines, value } = await both('session', 'session', DISK);
    const view = value as SessionView;
    const [connection] = view.ConnectionsList;
    // ss(8) asks the kernel.
    const filter = `( sport = :${connection?.LocalPort} and dport = :${tgt.port} )`;
    const sockets = await judge('ss', '-Htnp', 'state', 'established', filter);
    expect(sockets.trim().split('\n')).toHaveLength(1);
    expect(sockets).toContain(`${connection?.LocalAddr}:${connection?.LocalPort}`);
    expect(sockets).toContain(`pid=${daemon.pid},`);
    expect(connection).toMatchObject({ RemoteAddr: '127.0.0.1', RemotePort: tgt.port, CID: 0 });
    const text = lines.join('\n');
    expect(text).toMatch(/^KEY +OFFERED +DECLARED BY TARGET +IN FORCE$/m);
    expect(text).toMatch(/^MaxRecvDataSegmentLength +262144 +- +8192$/m);
    expect(text).toMatch(/^removalLatencySeconds +20 +now$/m);
    expect(text).toMatch(/^noopIntervalSeconds +5 +from the next connection on$/m);
    expect(text).toMatch(/^headerDigest +None +after a logout and a new login$/m);
    expect(view.settings).toContainEqual({ option: 'luns', value: null, applies: 'nextLogin' });
    await expectRefused(2, /no session .*sessions` lists them/i, 'session', OTHER);
  });

  it('devices lists the devices, and nbdinfo opens them', async () => {
    const { lines, value } = await both('devices', 'devices');
    expect(lines[0]).toMatch(/^DEVICE +SIZE +MODE +LUN +SESSION +TARGET$/);
    expect(lines[1]).toMatch(/\.sock +8\.0 MiB +rw +1 +loggedIn +iqn/);
    const { devices } = value as { devices: { uri: string }[] };
    expect(await judge('nbdinfo', '--size', devices[0]?.uri ?? '')).toBe(`${8 * MIB}\n`);
  });

  it('rescan adds a new LUN', async () => {
    const { lines } = await both('rescan', 'rescan');
    expect(lines).toEqual([expect.stringMatching(/^session [0-9a-f]{16}: no new LUN$/)]);
    const file = join(daemon.folder, 'new.img');
    writeFileSync(file, Buffer.alloc(MIB));
    const unit = ['--lld', 'iscsi', '--mode', 'logicalunit', '--op', 'new', '--tid', '1'];
    await tgt.adm(...unit, '--lun', '2', '--backing-store', file);
    const { out } = await cli('rescan', DISK);
    // tgt announces the LUN itself, and the session may have been quicker.
    expect(out).toMatch(/: (?:new: 2|no new LUN)\n$/);
    await daemon.until(async () => (await sessionOf(DISK)).devices.length === 2);
  });

  it('set changes the options of a running session, says from when on, and rejects the others', async () => {
    const seconds = await cli('set', DISK, 'removal-latency', '300');
    expectGood(seconds);
    expect(seconds.out).toBe('removalLatencySeconds: 20 → 300; it counts now\n');
    const bytes = await cli('set', DISK, 'heldBytesMax', '4MiB', '--json');
    expectGood(bytes);
    expect(checked('changed', bytes.out)).toEqual({
      option: 'heldBytesMax',
      before: 128 * MIB,
      value: 4 * MIB,
      applies: 'now',
    });
    const depth = await cli('set', DISK, 'queue-depth-max', '7');
    expect(depth.out).toBe('queueDepthMax: 128 → 7; it counts now\n');
    const ping = await cli('set', DISK, 'noop-interval', '9');
    expect(ping.out).toBe('noopIntervalSeconds: 5 → 9; it counts from the next connection on\n');
    expect((await sessionOf(DISK)).options).toMatchObject({
      removalLatencySeconds: 300,
      heldBytesMax: 4 * MIB,
      queueDepthMax: 7,
      noopIntervalSeconds: 9,
    });
    await expectRefused(
      27,
      /headerDigest is settled at the login/,
      ...['set', DISK, 'header-digest', 'CRC32C'],
    );
    await expectRefused(27, /busyPollMicroseconds is the daemon's/, 'set', DISK, 'busy-poll', '1');
    await expectRefused(7, /Did you mean queueDepthMax/, 'set', DISK, 'queueDepthMx', '1');
    await expectRefused(
      7,
      /queueDepthMax must be a whole number from 1/,
      ...['set', DISK, 'queueDepthMax', '0'],
    );
  });

  it('top prints its table --count times', async () => {
    const flags = ['top', '--count', '2', '--interval', '0.2'];
    const [text, json] = await Promise.all([cli(...flags), cli(...flags, '--json')]);
    expectGood(text);
    expect(text.out.match(/^SESSION +STATE +IN\/s +OUT\/s +IOPS/gm)).toHaveLength(2);
    expect(text.out).toContain(DISK);
    expectGood(json);
    const looks = json.out.trimEnd().split('\n');
    expect(looks).toHaveLength(2);
    for (const look of looks) checked('statistics', look);
    await expectRefused(7, /--interval must be a number from 0.1/, 'top', '--interval', '0');
  });

  it('top draws a screen on a terminal until q, and the terminal is as before', async () => {
    const env = { ...process.env, ISCSI_NBD_CONTROL: daemon.control, TERM: 'xterm' };
    const command = `'${process.execPath}' '${CLI}' top --interval 0.2`;
    // util-linux's `script` is the terminal.
    const child = spawn('script', ['-qec', command, '/dev/null'], { env });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    let out = '';
    child.stdout.on('data', (text) => {
      out += text;
    });
    await daemon.until(async () => out.includes('reverse'));
    child.stdin.write('\r');
    await daemon.until(async () => out.includes('>▾'));
    child.stdin.write('q');
    expect(await ended).toBe(0);
    expect(out.startsWith('\u001b[?1049h')).toBe(true);
    expect(out.endsWith('\u001b[?1049l')).toBe(true);
  });

  it('events prints the events until SIGINT, for people and for programs', async () => {
    const env = { ...process.env, ISCSI_NBD_CONTROL: daemon.control };
    const watchers = [[], ['--json']].map((flags) => {
      const child = spawn(process.execPath, [CLI, 'events', ...flags], { env });
      const watcher = { child, out: '', err: '' };
      child.stdout.on('data', (text) => {
        watcher.out += text;
      });
      child.stderr.on('data', (text) => {
        watcher.err += text;
      });
      return watcher;
    });
    await daemon.until(async () => {
      await daemon.run('login', portal, OTHER, '--type', 'informational');
      await daemon.run('logout', OTHER);
      // One that began in the middle of a session has not seen its login.
      return watchers.every(({ out }) => /loggingIn.*closed/s.test(out));
    });
    for (const watcher of watchers) {
      const end = new Promise((resolve) => watcher.child.once('close', resolve));
      watcher.child.kill('SIGINT');
      expect([await end, watcher.err]).toEqual([0, '']);
    }
    const [text = '', json = ''] = watchers.map(({ out }) => out);
    expect(text).toMatch(/^\S+Z session [0-9a-f]{16}: loggingIn → loggedIn: logged in to 127/m);
    for (const line of json.trimEnd().split('\n')) checked('event', line);
  });

  it('persistent lists and removes logins; the session continues', async () => {
    await expectRefused(
      21,
      /There is no persistent login .*nobody/,
      ...['persistent', 'remove', 'iqn.2024-01.com.example:nobody'],
    );
    await expectRefused(7, /persistent remove needs a session or target/, 'persistent', 'remove');
    await cli('login', portal, OTHER, '--persistent');
    const { lines, value } = await both('persistent', 'persistent', 'list');
    expect(lines[0]).toMatch(/^SESSION +STATE +TYPE +PORTAL +TARGET$/);
    expect(lines[1]).toMatch(new RegExp(`loggedIn +data +${portal} +${OTHER}$`));
    expect(value).toMatchObject({ logins: [{ TargetName: OTHER, state: 'loggedIn' }] });
    const removed = await cli('persistent', 'remove', OTHER);
    expectGood(removed);
    expect(removed.out).toMatch(/is not logged in at the next start; its session continues until/);
    await cli('login', portal, OTHER, '--persistent');
    const json = await cli('persistent', 'remove', OTHER, '--json');
    expectGood(json);
    expect(checked('removed', json.out)).toMatchObject({ removed: [{ TargetName: OTHER }] });
    expect((await cli('persistent', 'list')).code).toBe(21);
    expect((await sessionOf(OTHER)).state).toBe('loggedIn');
  });

  it('logout ends one session, or all', async () => {
    const id = (await sessionOf(OTHER)).UniqueSessionId;
    const one = await cli('logout', id.slice(0, 8));
    expectGood(one);
    expect(one.out).toBe(`session ${id} is logged out\n`);
    await expectRefused(2, /There is no session/, 'logout', OTHER);
    await expectRefused(7, /logout needs a session, or --all/, 'logout');
    const disk = (await sessionOf(DISK)).UniqueSessionId;
    const all = await cli('logout', '--all', '--json');
    expectGood(all);
    expect(checked('logout', all.out)).toEqual({ loggedOut: 1, sessions: [disk] });
    const connections = ['--lld', 'iscsi', '--mode', 'conn', '--op', 'show', '--tid', '1'];
    expect((await tgt.adm(...connections)).trim()).toBe('');
    for (const command of ['sessions', 'devices', 'logout --all']) {
      const [name = '', ...flags] = command.split(' ');
      const { code, out, err } = await cli(name, ...flags);
      expect([code, out]).toEqual([21, '']);
      expect(err).toMatch(/`iscsi-nbd login` makes/);
    }
  });
});

describe('import-open-iscsi', { timeout: SLOW }, () => {
  const record = (target: string, more: readonly string[] = []) =>
    [
      '# BEGIN RECORD 2.1.8',
      `node.name = ${target}`,
      'node.startup = automatic',
      'node.session.timeo.replacement_timeout = 77',
      'node.conn[0].address = 127.0.0.1',
      `node.conn[0].port = ${tgt.port}`,
      ...more,
      '# END RECORD',
      '',
    ].join('\n');

  it('the command imports node records with secrets as logins of the next start', async () => {
    const nodes = join(daemon.folder, 'nodes');
    const secrets = join(daemon.folder, 'secrets');
    for (const target of [OTHER, CHAP]) mkdirSync(join(nodes, target), { recursive: true });
    writeFileSync(join(nodes, OTHER, `127.0.0.1,${tgt.port},1`), record(OTHER));
    const chap = [
      'node.session.auth.authmethod = CHAP',
      'node.session.auth.username = importer',
      `node.session.auth.password = ${SECRET}`,
    ];
    writeFileSync(join(nodes, CHAP, `127.0.0.1,${tgt.port},1`), record(CHAP, chap));
    const flags = ['import-open-iscsi', nodes, '--secrets-directory', secrets];
    const dry = await cli(...flags, '--dry-run');
    expectGood(dry);
    expect(dry.out).toMatch(/cli-chap at 127\.0\.0\.1:\d+ would be logged in to/);
    expect((await cli('persistent', 'list')).code).toBe(21);
    const made = await cli(...flags, '--json');
    expectGood(made);
    const { imported } = checked('import', made.out) as { imported: { TargetName: string }[] };
    expect(imported.map((login) => login.TargetName).sort()).toEqual([CHAP, OTHER]);
    expect(made.out).not.toContain(SECRET);
    const files = (await exec('ls', [secrets])).stdout.trim().split('\n');
    expect(files).toHaveLength(1);
    const file = join(secrets, files[0] ?? '');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, 'utf8')).toBe(`${SECRET}\n`);
    const { logins } = checked('persistent', (await cli('persistent', 'list', '--json')).out) as {
      logins: { TargetName: string; LoginOptions: object; state: null }[];
    };
    expect(logins.map((login) => login.state)).toEqual([null, null]);
    expect(logins.find((login) => login.TargetName === CHAP)?.LoginOptions).toMatchObject({
      removalLatencySeconds: '77',
      chapUser: 'importer',
      chapSecretFile: file,
    });
    expect(await daemon.stop()).toBe(0);
    await daemon.start('--wait-for', `${OTHER}/1,${CHAP}/1`);
    const session = await sessionOf(CHAP);
    expect(session).toMatchObject({ state: 'loggedIn', persistent: true });
    expect(session.ConnectionsList).toMatchObject([{ AuthType: 1 }]);
    expect(session.options['removalLatencySeconds']).toBe(77);
    const none = join(daemon.folder, 'none');
    mkdirSync(none);
    await expectRefused(21, /no node record/i, 'import-open-iscsi', none);
  });

  it('a session in an outage shows the reason, and when it retries', async () => {
    await tgt.kill();
    await daemon.until(async () => {
      const { state, lastError, nextAttemptInSeconds } = await sessionOf(OTHER);
      return (
        state === 'reconnecting' &&
        /ECONNREFUSED/.test(`${lastError}`) &&
        nextAttemptInSeconds !== null
      );
    });
    const { code, out } = await cli('sessions');
    expect(code).toBe(0);
    expect(out).toMatch(
      /^[0-9a-f]{16}: no connection to 127\.0\.0\.1:\d+ \(ECONNREFUSED\); next attempt in [\d.]+ s; devices are removed in [\d.]+ s$/m,
    );
    expect(daemon.log).toMatch(/a login attempt failed: no connection to .*ECONNREFUSED/);
    expect((await cli('rescan', OTHER)).code).toBe(32);
  });
});
