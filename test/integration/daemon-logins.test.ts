import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DaemonProcess } from './daemon-process.js';

/** Logins that the daemon keeps: what of them fails, and what is said of the rest. */

const SLOW = 120_000;
const TARGET = 'iqn.2024-01.com.example:kept';
/** Nothing listens there. */
const PORTAL = '127.0.0.1:1';

const daemon = new DaemonProcess();
beforeAll(async () => {
  const config = join(daemon.folder, 'config.yaml');
  writeFileSync(config, 'maxBurstLength: 65536\n');
  await daemon.start('--config', config);
}, SLOW);
afterAll(() => daemon.stop());

const logins = async () =>
  JSON.parse((await daemon.run('persistent', 'list', '--json')).out).logins.map(
    (login: { TargetName: string }) => login.TargetName,
  );

describe('login --persistent', { timeout: SLOW }, () => {
  it('a login that fails is kept, and its error says so', async () => {
    const failed = await daemon.run('login', PORTAL, TARGET, '--persistent');
    expect(failed.code).toBe(4);
    expect(failed.err).toMatch(/ECONNREFUSED/);
    expect(failed.err).toMatch(
      new RegExp(`The login is kept: .* next start\\. \`iscsi-nbd persistent remove ${TARGET}\``),
    );
    expect(await logins()).toEqual([TARGET]);
    expect((await daemon.run('persistent', 'remove', TARGET)).code).toBe(0);
  });

  it('a login that is refused for its options is not kept, and its error says so', async () => {
    const wrong = ['--persistent', '--chap-user', 'me', '--chap-secret-file', '/nowhere'];
    const failed = await daemon.run('login', PORTAL, TARGET, ...wrong);
    expect(failed.code).not.toBe(0);
    expect(failed.err).toMatch(/\/nowhere.* The login is not kept\.$/m);
    expect(await logins()).toEqual([]);
  });

  it('a login that fails without --persistent says nothing of the next start', async () => {
    const failed = await daemon.run('login', PORTAL, TARGET);
    expect(failed.err).not.toMatch(/login is/);
  });
});

describe('import-open-iscsi with a daemon', { timeout: SLOW }, () => {
  const nodes = join(daemon.folder, 'nodes');
  const put = (target: string, ...settings: readonly string[]) => {
    mkdirSync(join(nodes, target), { recursive: true });
    const lines = [
      `node.name = iqn.2024-01.com.example:${target}`,
      'node.startup = automatic',
      'node.conn[0].address = 192.0.2.1',
      ...settings,
    ];
    writeFileSync(join(nodes, target, '192.0.2.1,3260,1'), `${lines.join('\n')}\n`);
  };

  it('a record that the daemon refuses is named and skipped, as --dry-run foretells', async () => {
    put(
      'good',
      'node.conn[0].timeo.noop_out_interval = 0',
      'node.conn[0].timeo.noop_out_timeout = 0',
    );
    put('late', 'node.conn[0].timeo.login_timeout = 0');
    put('burst', 'node.session.iscsi.FirstBurstLength = 262144');
    put('none', 'node.session.timeo.replacement_timeout = soon');
    const dry = await daemon.run('import-open-iscsi', nodes, '--dry-run');
    expect(await logins()).toEqual([]);
    const { code, out, err } = await daemon.run('import-open-iscsi', nodes, '--json');
    expect([dry.code, code]).toEqual([0, 0]);
    expect(dry.out.match(/:\w+ at .* would be/g)).toHaveLength(2);
    expect(dry.err).toBe(err);
    const { imported, skipped } = JSON.parse(out);
    expect(imported.map(({ LoginOptions }: { LoginOptions: object }) => LoginOptions)).toEqual([
      { noopIntervalSeconds: '0' },
      { loginTimeoutSeconds: '30' },
    ]);
    expect(skipped).toHaveLength(2);
    expect(err).toMatch(/none\/192.*replacement_timeout must be/);
    expect(err).toMatch(/:burst: .*firstBurstLength \(262144\) must not be larger/);
    expect((await logins()).sort()).toEqual([
      'iqn.2024-01.com.example:good',
      'iqn.2024-01.com.example:late',
    ]);
  });

  it('a secret goes into a new file of its owner, whatever lies there, and into no folder of others', async () => {
    const secrets = join(daemon.folder, 'secrets');
    const withSecret = join(daemon.folder, 'nodes with a secret');
    const lines = ['name = iqn.2024-01.com.example:chap', 'startup = manual'];
    lines.push('conn[0].address = 192.0.2.1', 'session.auth.authmethod = CHAP');
    lines.push('session.auth.username = me', 'session.auth.password = secret-of-16-char');
    mkdirSync(join(withSecret, 'chap'), { recursive: true });
    const text = lines.map((line) => `node.${line}\n`).join('');
    writeFileSync(join(withSecret, 'chap', '192.0.2.1,3260,1'), text);
    const keep = ['import-open-iscsi', withSecret, '--all', '--secrets-directory', secrets];
    expect(await daemon.run(...keep)).toMatchObject({ code: 0 });
    const [file = ''] = readdirSync(secrets).map((name) => join(secrets, name));
    const victim = join(daemon.folder, 'victim');
    writeFileSync(victim, 'as it was', { mode: 0o666 });
    rmSync(file);
    symlinkSync(victim, file);
    expect(await daemon.run(...keep)).toMatchObject({ code: 0 });
    expect(readFileSync(victim, 'utf8')).toBe('as it was');
    expect(readFileSync(file, 'utf8')).toBe('secret-of-16-char\n');
    expect(lstatSync(file).mode & 0o777).toBe(0o600);
    expect(lstatSync(file).isFile()).toBe(true);
    chmodSync(secrets, 0o777);
    const { code, err } = await daemon.run(...keep);
    expect([code, err]).toEqual([7, expect.stringContaining('where other users may write')]);
  });
});
