import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import * as z from 'zod';
import { COMMAND_SCHEMAS } from '../../src/cli/command-results.js';
import { PUBLISHED_SCHEMAS } from '../../src/control/control-results.js';
import type { SessionView } from '../../src/supervisor/session-report.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { published, schemaFile } from '../helpers/published-schema.js';
import { freePort } from '../helpers/tgt.js';
import { CLI, DaemonProcess } from './daemon-process.js';

/** The machine of a test may be busy; nothing here is about speed. */
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
const exec = promisify(execFile);
const name = (number: number) => `iqn.2001-04.com.example:disk${number}`;
type Sessions = { readonly sessions: SessionView[] };

let node: TargetNode;
let server: TargetServer;

beforeAll(async () => {
  const targets = Array.from({ length: 60 }, (_, number) => ({
    name: name(number),
    luns: { 0: TargetDisk.ram({ sizeBytes: 8 << 20 }) },
  }));
  node = new TargetNode({ targets, negotiation: { defaultTime2Wait: 0 } });
  server = await startTargetServer(node);
});
afterAll(() => server.close());

describe('the published schemas (docs/json-schema)', () => {
  it.each(Object.entries({ ...PUBLISHED_SCHEMAS, ...COMMAND_SCHEMAS }))(
    'the schema of %s matches the code',
    async (file, type) => {
      const schema = { title: `iscsi-nbd ${file}`, ...z.toJSONSchema(type) };
      const text = `${JSON.stringify(schema, null, 2)}\n`;
      await expect(text).toMatchFileSnapshot(schemaFile(file).pathname);
    },
  );

  it('the schemas reject other objects', () => {
    expect(published('sessions').safeParse({ sessions: [{}] }).success).toBe(false);
    expect(published('error').safeParse({ event: 'error' }).success).toBe(false);
  });
});

describe('commands without a daemon', () => {
  it.each([['sessions'], ['top'], ['login', '192.0.2.1', name(0)]])(
    'the command %s exits with status 20 and says how to start a daemon',
    async (...command) => {
      await using daemon = new DaemonProcess();
      const { code, out, err } = await daemon.runProcess(...command);
      expect({ code, out }).toEqual({ code: 20, out: '' });
      expect(err).toMatch(/systemctl start iscsi-nbd/);
    },
  );
});

describe('a daemon', () => {
  it('the commands log in, show, change and log out, each with its schema', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    expect((await daemon.run('sessions')).code).toBe(21);
    expect((await daemon.run('devices')).code).toBe(21);
    const login = await daemon.json<{ UniqueSessionId: string; existed: boolean }>(
      ...['login', server.portal, name(0), '--removal-latency', '20'],
    );
    published('login').parse(login);
    expect(login.existed).toBe(false);
    const sessions = await daemon.json<Sessions>('sessions');
    published('sessions').parse(sessions);
    expect(sessions.sessions[0]).toMatchObject({
      UniqueSessionId: login.UniqueSessionId,
      TargetiSCSIName: name(0),
      InitiatoriSCSIName: 'iqn.2001-04.com.example:host',
      Type: 2,
      ConnectionCount: 1,
      state: 'loggedIn',
      options: { removalLatencySeconds: 20 },
    });
    // The beginning of the number, the name: either finds the session.
    const session = await daemon.json<SessionView>('session', login.UniqueSessionId.slice(0, 6));
    published('session').parse(session);
    const key = session.keys.find((row) => row.key === 'MaxBurstLength');
    expect(key).toMatchObject({ offered: '262144', inForce: expect.stringMatching(/^\d+$/) });
    const devices = await daemon.json<{ devices: { uri: string }[] }>('devices');
    published('devices').parse(devices);
    const { stdout } = await exec('nbdinfo', ['--size', devices.devices[0]?.uri ?? '']);
    expect(stdout.trim()).toBe(String(8 << 20));
    published('statistics').parse(await daemon.json('top', '--count', '1'));
    const changed = await daemon.json('set', name(0), 'removal-latency', 'never');
    published('changed').parse(changed);
    expect(changed).toMatchObject({ before: 20, value: 'never', applies: 'now' });
    published('rescan').parse(await daemon.json('rescan'));
    for (const command of ['sessions', 'devices', 'top --count 1', `session ${name(0)}`]) {
      const { code, out } = await daemon.runProcess(...command.split(' '));
      expect(code).toBe(0);
      expect(out).toContain(name(0));
    }
    expect((await daemon.runProcess('logout', name(0))).code).toBe(0);
    expect(node.sessions).toHaveLength(0);
    expect(readdirSync(join(daemon.folder, 'nbd'))).toEqual([]);
    expect(await daemon.stop()).toBe(0);
    expect(existsSync(daemon.control)).toBe(false);
  });

  it('concurrent logins make one session, and one with other options gets 15', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const loginsBefore = node.stats.logins;
    const logins = await Promise.all(
      [1, 2, 3, 4].map(() =>
        daemon.json<{ UniqueSessionId: string }>('login', server.portal, name(1)),
      ),
    );
    expect(new Set(logins.map((login) => login.UniqueSessionId)).size).toBe(1);
    expect(node.stats.logins - loginsBefore).toBe(1);
    const other = await daemon.run('login', server.portal, name(1), '--header-digest', 'CRC32C');
    expect(other.code).toBe(15);
    expect(other.err).toMatch(/already, with headerDigest/);
    // Another type is another session.
    expect(
      (await daemon.run('login', server.portal, name(1), '--type', 'informational')).code,
    ).toBe(0);
    expect((await daemon.json<Sessions>('sessions')).sessions).toHaveLength(2);
    await daemon.run('logout', '--all');
    expect((await daemon.json<Sessions>('sessions')).sessions).toEqual([]);
  });

  it.each([
    [2, ['session', 'iqn.2001-04.com.example:nobody']],
    [2, ['logout', 'ffff0000']],
    [4, ['login', '127.0.0.1:1', name(0)]],
    [5, ['login', 'PORTAL', 'iqn.2001-04.com.example:nobody']],
    [7, ['login', 'PORTAL', 'not-a-name']],
    [7, ['login', 'PORTAL', name(0), '--queue-depth-max', '0']],
    [7, ['logout']],
    [7, ['set', name(2), 'removal-latencie', '3']],
    [7, ['set', name(2), 'removal-latency', '-3']],
    [27, ['set', name(2), 'headerDigest', 'CRC32C']],
    [21, ['persistent', 'remove', name(9)]],
  ])('status %i is the result of the command %j', async (code, command) => {
    const { daemon } = await shared();
    const args = command.map((word) => (word === 'PORTAL' ? server.portal : word));
    const outcome = await daemon.run(...args);
    // A target that does not know the name says so for good (status class 2).
    expect(outcome.code === 19 && code === 5 ? 5 : outcome.code).toBe(code);
    expect(outcome.err).toMatch(/^iscsi-nbd: .+\.\n$/);
    const withJson = await daemon.run(...args, '--json');
    expect(withJson.code).toBe(outcome.code);
    published('error').parse(JSON.parse(withJson.err));
  });

  it('a second daemon is kept from the state and the socket (status 28)', async () => {
    const { daemon } = await shared();
    await using second = new DaemonProcess();
    second.launch('--state-directory', join(daemon.folder, 'state'));
    expect(await second.ended).toBe(28);
    second.launch('--control', daemon.control);
    expect(await second.ended).toBe(28);
  });

  it('events prints a line an event', async () => {
    const { daemon } = await shared();
    const child = spawn(process.execPath, [CLI, 'events', '--json', '--control', daemon.control]);
    const events: { event: string; to?: string }[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line)));
    // The subscription works once a first event has come through.
    await daemon.until(async () => {
      await daemon.run('login', server.portal, name(3));
      await daemon.run('logout', name(3));
      return events.some((event) => event.to === 'loggedIn');
    });
    for (const event of events) published('event').parse(event);
    const states = events.filter((event) => event.event === 'sessionState');
    expect(states.map((event) => event.to)).toContain('loggedIn');
    const exit = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGINT');
    expect(await exit).toBe(0);
  });

  it('the end of the daemon ends a watcher with status 18; the next command gets 20', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const watcher = daemon.run('top', '--interval', '0.1', '--json');
    // It has been answered, so it is connected.
    await daemon.until(() => daemon.runOut.includes('statistics'));
    await daemon.stop('SIGKILL');
    const { code, err } = await watcher;
    expect(code).toBe(18);
    expect(err).toMatch(/The daemon at .* ended the connection/);
    expect((await daemon.run('sessions')).code).toBe(20);
  });

  it('the metrics are served to this machine only', async () => {
    await using daemon = new DaemonProcess();
    const socket = join(daemon.folder, 'metrics.sock');
    await daemon.start('--metrics-listen', socket);
    await daemon.run('login', server.portal, name(4));
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    const { stdout } = await exec('curl', ['-s', '--unix-socket', socket, 'http://x/metrics']);
    expect(stdout).toContain('iscsi_nbd_sessions 1');
    expect(stdout).toMatch(/iscsi_nbd_session_up\{session="[0-9a-f]{16}",target="[^"]+"\} 1/);
    expect(stdout).toMatch(/iscsi_nbd_session_responses_total\{[^}]+\} [1-9]/);
    await using second = new DaemonProcess();
    second.launch('--metrics-listen', '0.0.0.0:9100');
    expect(await second.ended).toBe(7);
  });

  it('the metrics replace no file, and have no other name than one of this host', async () => {
    await using first = new DaemonProcess();
    const file = join(first.folder, 'precious.txt');
    writeFileSync(file, 'kept');
    first.launch('--metrics-listen', file);
    expect(await first.ended).toBe(7);
    expect(first.log).toContain(`--metrics-listen ${file}: there is a file of that name`);
    expect(readFileSync(file, 'utf8')).toBe('kept');
    await using daemon = new DaemonProcess();
    const place = `127.0.0.1:${await freePort()}`;
    await daemon.start('--metrics-listen', place);
    const status = async (host: string) => {
      const asked = ['-s', '-o', '/dev/null', '-w', '%{http_code}', '-H', `Host: ${host}`];
      return (await exec('curl', [...asked, `http://${place}/metrics`])).stdout;
    };
    expect(await status('attacker.example')).toBe('403');
    expect(await status(`localhost:${place.split(':')[1]}`)).toBe('200');
    expect(await status(place)).toBe('200');
  });

  it('a wrong method or wrong parameters are reported by the codes of JSON-RPC 2.0', async () => {
    const { daemon } = await shared();
    const refusal = (method: string, params: unknown) =>
      daemon.call([{ method, params }]).then(() => '', String);
    // The standard's codes: -32601 method not found, -32602 invalid params.
    expect(await refusal('LoginToTaget', {})).toMatch(/-32601.*did you mean LoginToTarget\?/);
    expect(await refusal('Devices', { more: 1 })).toMatch(/-32602.*Devices: .*more/);
    expect(await refusal('LogoutFromTarget', { UniqueSessionId: 'x' })).toMatch(/16 hex digits/);
  });

  it('the daemon goes on serving its disks while its control socket is abused', async () => {
    const { daemon } = await shared();
    const { devices } = await daemon.json<{ devices: { uri: string }[] }>('devices');
    const uri = devices[0]?.uri ?? '';
    const rude = Array.from({ length: 400 }, (_, number) => {
      const socket = connect(daemon.control);
      socket.on('error', () => {});
      if (number % 4 === 0) socket.write('{"jsonrpc":"2.0","id":1,"meth');
      if (number % 4 === 1) socket.write('x'.repeat(2 << 20));
      if (number % 4 === 2) {
        socket.pause();
        socket.write('{"jsonrpc":"2.0","id":1,"method":"SubscribeEvents"}\n'.repeat(2));
      }
      return socket;
    });
    const [before, after] = [join(daemon.folder, 'before'), join(daemon.folder, 'after')];
    writeFileSync(before, randomBytes(8 << 20));
    await exec('nbdcopy', ['--flush', before, uri]);
    await exec('nbdcopy', [uri, after]);
    expect(readFileSync(after).equals(readFileSync(before))).toBe(true);
    for (const socket of rude) socket.destroy();
    // As soon as they are gone there is room for others.
    await daemon.until(async () => (await daemon.run('sessions')).code === 0);
    const session = await daemon.json<SessionView>('session', name(2));
    expect(session).toMatchObject({ state: 'loggedIn', outages: 0 });
  });

  let sharedDaemon: DaemonProcess | null = null;
  async function shared(): Promise<{ daemon: DaemonProcess }> {
    if (sharedDaemon === null) {
      sharedDaemon = new DaemonProcess();
      await sharedDaemon.start();
      // The target is in this process, which may have much else to do for more than 5 s.
      await sharedDaemon.run('login', server.portal, name(2), '--noop-timeout', '60');
    }
    return { daemon: sharedDaemon };
  }
  afterAll(async () => {
    await sharedDaemon?.[Symbol.asyncDispose]();
  });
});

describe('a persistent login', () => {
  it('a session is the same again after a kill -9, persistent or not', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(5), '--persistent');
    await daemon.run('login', server.portal, name(6));
    const before = (await daemon.json<Sessions>('sessions')).sessions;
    await daemon.stop('SIGKILL');
    await daemon.start('--wait-for', `${name(5)}/0,${name(6)}/0`);
    const after = (await daemon.json<Sessions>('sessions')).sessions;
    const identity = (list: SessionView[]) =>
      list.map((one) => `${one.TargetiSCSIName} ${one.UniqueSessionId} ${one.ISID}`).sort();
    expect(identity(after)).toEqual(identity(before));
  });

  it('a session is the same again after an orderly end only if it is persistent', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(7), '--persistent');
    await daemon.run('login', server.portal, name(8));
    const before = (await daemon.json<Sessions>('sessions')).sessions;
    const kept = before.find((one) => one.TargetiSCSIName === name(7));
    expect(await daemon.stop()).toBe(0);
    expect(node.sessions).toHaveLength(0);
    await daemon.start('--wait-for', `${name(7)}/0`);
    const after = (await daemon.json<Sessions>('sessions')).sessions;
    expect(after.map((one) => one.UniqueSessionId)).toEqual([kept?.UniqueSessionId]);
    published('persistent').parse(await daemon.json('persistent', 'list'));
    // A logout ends the session, not the wish for it; its next session is another.
    await daemon.run('logout', name(7));
    const [login] = (
      await daemon.json<{ logins: { UniqueSessionId: string; state: null }[] }>(
        ...['persistent', 'list'],
      )
    ).logins;
    expect(login?.state).toBe(null);
    expect(login?.UniqueSessionId).not.toBe(kept?.UniqueSessionId);
    expect((await daemon.run('persistent', 'remove', name(7))).code).toBe(0);
    expect((await daemon.run('persistent', 'list')).code).toBe(21);
  });

  it('a session is not ended by another daemon with a copy of the state directory', async () => {
    await using daemon = new DaemonProcess();
    await using copy = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(12), '--persistent');
    await daemon.stop();
    cpSync(join(daemon.folder, 'state'), join(copy.folder, 'state'), { recursive: true });
    await daemon.start('--wait-for', `${name(12)}/0`);
    const loginsBefore = node.stats.logins;
    await copy.start();
    await copy.until(() => copy.log.includes('one state directory is a copy of the other'));
    expect(node.stats.logins).toBe(loginsBefore);
    const session = await daemon.json<SessionView>('session', name(12));
    expect(session).toMatchObject({ state: 'loggedIn', outages: 0, logins: 1 });
  });

  it('a broken record is reported, and the others are logged in', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(10), '--persistent');
    await daemon.stop();
    const logins = join(daemon.folder, 'state', 'logins');
    writeFileSync(join(logins, 'aaaaaaaaaaaaaaaaaaaaaaaa.json'), '{"half');
    await daemon.start('--wait-for', `${name(10)}/0`);
    expect(daemon.log).toMatch(/record is broken/);
    expect(readdirSync(logins)).toContain('aaaaaaaaaaaaaaaaaaaaaaaa.json.broken');
  });

  it('the daemon names the missing LUNs when the wait ends (status 33)', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(11), '--persistent');
    await daemon.stop();
    const wanted = `${name(11)}/0,${name(11)}/7,${name(12)}/0`;
    const { code, err } = await daemon.runProcess(
      ...['daemon', '--control', daemon.control, '--state-directory', join(daemon.folder, 'state')],
      ...['--socket-directory', join(daemon.folder, 'nbd')],
      ...['--wait-for', wanted, '--wait-timeout', '3', '--log-level', 'silent'],
    );
    expect(code).toBe(33);
    expect(err).toContain(`missing: ${name(11)}/7, ${name(12)}/0.`);
  });

  it('a record holds the path of a secret file and not the secret', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const secret = join(daemon.folder, 'secret');
    writeFileSync(secret, 'correct horse battery\n', { mode: 0o600 });
    const login = ['login', server.portal, name(13), '--persistent', '--chap-user', 'me'];
    expect((await daemon.run(...login, '--chap-secret-file', secret)).code).toBe(0);
    await daemon.stop();
    const logins = join(daemon.folder, 'state', 'logins');
    const texts = readdirSync(logins).map((file) => readFileSync(join(logins, file), 'utf8'));
    expect(texts.join()).toContain(secret);
    expect(texts.join() + daemon.log).not.toContain('correct horse');
  });

  it('a login whose target is away does not delay the others, and a logout ends its retries', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    for (const number of [14, 15, 16]) {
      await daemon.run('login', server.portal, name(number), '--persistent');
    }
    await daemon.stop();
    const away = node.targets.get(name(14));
    node.removeTarget(name(14));
    await daemon.start('--logins-max', '1', '--wait-for', `${name(15)}/0,${name(16)}/0`);
    const { sessions } = await daemon.json<Sessions>('sessions');
    expect(sessions.find((one) => one.TargetiSCSIName === name(14))?.state).toBe('loggingIn');
    expect((await daemon.run('logout', name(14))).code).toBe(0);
    expect((await daemon.json<Sessions>('sessions')).sessions).toHaveLength(2);
    if (away !== undefined) node.addTarget(away);
  });

  it('forty logins come back after a crash', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    const numbers = Array.from({ length: 40 }, (_, number) => number + 20);
    await daemon.call(
      numbers.map((number) => ({
        method: 'LoginToTarget',
        params: { TargetName: name(number), TargetPortal: server.portal, PersistentLogin: true },
      })),
    );
    const before = (await daemon.json<Sessions>('sessions')).sessions;
    expect(before).toHaveLength(40);
    await daemon.stop('SIGKILL');
    const wanted = numbers.map((number) => `${name(number)}/0`).join();
    await daemon.start('--logins-max', '8', '--wait-for', wanted);
    const after = (await daemon.json<Sessions>('sessions')).sessions;
    const ids = (list: SessionView[]) => list.map((one) => one.UniqueSessionId).sort();
    expect(ids(after)).toEqual(ids(before));
  });
});

describe('a session in an outage', () => {
  it('the session shows its countdown, and a logout ends it at once', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(17), '--removal-latency', '300');
    const target = node.targets.get(name(17));
    node.removeTarget(name(17));
    const state = async () => (await daemon.json<SessionView>('session', name(17))).state;
    await daemon.until(async () => (await state()) === 'reconnecting');
    const session = await daemon.json<SessionView>('session', name(17));
    expect(session.removalInSeconds).toBeGreaterThan(200);
    expect(session.outages).toBe(1);
    expect((await daemon.run('top', '--count', '1')).out).toMatch(/away, \d+ s/);
    const startedAtMs = Date.now();
    expect((await daemon.run('logout', name(17))).code).toBe(0);
    expect(Date.now() - startedAtMs).toBeLessThan(10_000);
    if (target !== undefined) node.addTarget(target);
  });

  it('the device is removed after a latency that was shortened during the outage', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(18), '--removal-latency', 'never');
    const target = node.targets.get(name(18));
    node.removeTarget(name(18));
    const view = () => daemon.json<SessionView>('session', name(18));
    await daemon.until(async () => (await view()).state === 'reconnecting');
    await daemon.run('set', name(18), 'removal-latency', '1');
    await daemon.until(async () => (await view()).state === 'removed');
    expect((await view()).devices).toMatchObject([
      { device: null, uri: null, lunState: 'removed' },
    ]);
    if (target !== undefined) node.addTarget(target);
    await daemon.until(async () => (await view()).devices[0]?.lunState === 'serving');
  });
});

describe('rescan', () => {
  it('a rescan adds a new LUN', async () => {
    await using daemon = new DaemonProcess();
    await daemon.start();
    await daemon.run('login', server.portal, name(19));
    node.setLun(name(19), 5, TargetDisk.ram({ sizeBytes: 1 << 20 }));
    await daemon.run('rescan', name(19));
    await daemon.until(async () => {
      const { devices } = await daemon.json<{ devices: { lun: number }[] }>('devices');
      return devices.map((device) => device.lun).join() === '0,5';
    });
  });
});
