/**
 * A CHAP secret is handed over in every way there is, used in a login that works and in one that
 * fails, and then looked for in everything that leaves the process.
 */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { judge, Workplace } from '../helpers/command-process.js';
import { startTgt, type Tgt } from '../helpers/tgt.js';
import { DaemonProcess } from './daemon-process.js';

/** The machine of a test may be busy; nothing here is about speed. */
vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 });
const SECRET = 'correct-horse-battery';
const WRONG = 'incorrect-mule-staple';
const TARGET_SECRET = 'stapled-donkey-fuse';
const TARGET = 'iqn.2024-01.com.example:chap';
const USER = 'keeper';

let tgt: Tgt;
let place: Workplace;

beforeAll(async () => {
  place = await Workplace.make();
  tgt = await startTgt({
    iqn: TARGET,
    luns: [{ sizeBytes: 1 << 20 }],
    chap: { user: USER, password: SECRET, targetUser: 'target', targetPassword: TARGET_SECRET },
  });
  for (const [name, secret] of Object.entries({
    right: SECRET,
    wrong: WRONG,
    back: TARGET_SECRET,
  })) {
    writeFileSync(place.file(name), `${secret}\n`, { mode: 0o600 });
  }
});
afterAll(async () => {
  await tgt.stop();
  await place[Symbol.asyncDispose]();
});

/** A secret also shows as its hexadecimal or base64 form. */
function expectNoSecret(what: string, text: string): void {
  for (const secret of [SECRET, WRONG, TARGET_SECRET]) {
    for (const form of ['latin1', 'hex', 'base64'] as const) {
      expect(text, what).not.toContain(Buffer.from(secret).toString(form).replace(/=+$/, ''));
    }
  }
}

describe('a secret of a command', () => {
  const url = (authority = '') => `iscsi://${authority}127.0.0.1:${tgt.port}/${TARGET}/1`;
  const cases = {
    'a file named by a flag': (file: string) => ({
      args: [url(), '--chap-user', USER, '--chap-secret-file', place.file(file)],
    }),
    'the URL': (_file: string, secret: string) => ({ args: [url(`${USER}%${secret}@`)] }),
    'the environment': (_file: string, secret: string) => ({
      args: [url()],
      environment: { LIBISCSI_CHAP_USERNAME: USER, LIBISCSI_CHAP_PASSWORD: secret },
    }),
    'the configuration': (file: string) => {
      const config = place.file(`config-${file}.yaml`);
      writeFileSync(config, `chapUser: ${USER}\nchapSecretFile: ${place.file(file)}\n`);
      return { args: [url(), '--config', config] };
    },
    'a credential of systemd': (file: string) => {
      const directory = place.file(`credentials-${file}`);
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, 'chap-secret'), readFileSync(place.file(file)));
      return {
        args: [url(), '--chap-user', USER],
        environment: { CREDENTIALS_DIRECTORY: directory },
      };
    },
  };

  it.each(Object.entries(cases))(
    'a command uses a secret of %s, and does not show it',
    async (_source, make) => {
      for (const [file, secret, code] of [
        ['right', SECRET, 0],
        ['wrong', WRONG, 24],
      ] as const) {
        const { args, ...rest } = make(file, secret) as {
          args: string[];
          environment?: Record<string, string>;
        };
        const json = file === 'wrong' ? ['--json'] : [];
        const result = await place.run(['capacity', ...args, ...json], rest);
        expect(result.err, file).toMatch(
          code === 0 ? /^(?:warning: the URL has a password.*\n)?$/ : /0201/,
        );
        expect(result.code).toBe(code);
        expectNoSecret('the output', result.out + result.err);
      }
    },
  );

  it('a command rejects a target that proves itself with another secret, and shows none', async () => {
    const chap = ['--chap-user', USER, '--chap-secret-file', place.file('right')];
    const target = ['--target-chap-user', 'target', '--target-chap-secret-file'];
    const good = await place.run(['capacity', url(), ...chap, ...target, place.file('back')]);
    expect([good.code, good.err]).toEqual([0, '']);
    const bad = await place.run(['capacity', url(), ...chap, ...target, place.file('wrong')]);
    expect(bad.code).toBe(24);
    expectNoSecret('the output', bad.out + bad.err);
  });
});

describe('a daemon at log level trace', () => {
  it('the daemon shows no secret in log, responses, events, state, metrics, or its arguments', async () => {
    await using daemon = new DaemonProcess();
    const config = place.file('daemon.yaml');
    writeFileSync(config, `chapUser: ${USER}\nchapSecretFile: ${place.file('right')}\n`);
    const metrics = join(daemon.folder, 'metrics.sock');
    await daemon.start(
      ...['--log-level', 'trace', '--config', config, '--metrics-listen', metrics],
    );
    const said: string[] = [];
    const watcher = connect(daemon.control);
    watcher.on('data', (chunk) => said.push(String(chunk)));
    watcher.write('{"jsonrpc":"2.0","id":1,"method":"SubscribeEvents"}\n');
    const portal = `127.0.0.1:${tgt.port}`;
    const run = async (code: number, ...args: string[]) => {
      const outcome = await daemon.run(...args);
      expect(outcome.code, outcome.err).toBe(code);
      said.push(outcome.out, outcome.err);
    };
    const wrong = ['--chap-secret-file', place.file('wrong')];
    await run(24, 'login', portal, TARGET, ...wrong, '--json');
    const target = ['--target-chap-user', 'target', '--target-chap-secret-file'];
    await run(24, 'login', portal, TARGET, ...target, place.file('wrong'));
    await run(0, 'login', portal, TARGET, ...target, place.file('back'), '--persistent');
    for (const command of ['sessions', 'session', 'devices', 'persistent list', 'top --count 1']) {
      const [name = '', ...more] = command.split(' ');
      await run(0, name, ...(name === 'session' ? [TARGET] : more), '--json');
    }
    // A secret in a request is refused, and is not repeated.
    const request = { TargetName: TARGET, TargetPortal: portal, Password: SECRET };
    await expect(daemon.call([{ method: 'LoginToTarget', params: request }])).rejects.toThrow(
      /Password is not supported/,
    );
    const options = {
      TargetName: TARGET,
      TargetPortal: portal,
      LoginOptions: { chapSecret: SECRET },
    };
    const refusal = daemon.call([{ method: 'LoginToTarget', params: options }]);
    said.push(String(await refusal.catch((error: unknown) => error)));
    // The session is refused on its way back, too.
    const account = ['--lld', 'iscsi', '--mode', 'account', '--op'];
    await tgt.adm(...account, 'unbind', '--tid', '1', '--user', USER);
    await tgt.adm(...account, 'delete', '--user', USER);
    await tgt.adm(...account, 'new', '--user', USER, '--password', WRONG);
    await tgt.adm(...account, 'bind', '--tid', '1', '--user', USER);
    const connection = ['--lld', 'iscsi', '--mode', 'conn', '--tid', '1', '--op'];
    const sid = /Session: (\d+)/.exec(await tgt.adm(...connection, 'show'))?.[1] ?? '';
    await tgt.adm(...connection, 'delete', '--sid', sid, '--cid', '0');
    await daemon.until(() => said.join('').includes('"loginRefused"'));
    said.push(await judge('curl', '-s', '--unix-socket', metrics, 'http://x/metrics'));
    said.push(readFileSync(`/proc/${daemon.pid}/cmdline`, 'latin1'));
    expectNoSecret('an answer, event or metric', said.join('\n'));
    expect(daemon.log).toMatch(/"event":"loginRefused"/);
    expectNoSecret('the log', daemon.log);
    await daemon.stop();
    expectNoSecret('the log of the end', daemon.log);
    for (const file of files(daemon.folder)) expectNoSecret(file, readFileSync(file, 'latin1'));
    watcher.destroy();
  });
});

/** Every regular file below a directory. */
function files(directory: string): string[] {
  return readdirSync(directory, { recursive: true })
    .map((name) => join(directory, String(name)))
    .filter((path) => statSync(path).isFile());
}
