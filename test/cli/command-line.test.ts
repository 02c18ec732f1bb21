import { describe, expect, it } from 'vitest';
import { humanBytes } from '../../src/cli/print.js';
import { run, URL_LUN0 } from './fake-io.js';

describe('a wrong command line', () => {
  it.each([
    [[], /^iscsi-nbd: No command is given\. See `iscsi-nbd --help`\.\n$/],
    [['serv', URL_LUN0], /There is no command 'serv'\. Did you mean serve\? `iscsi-nbd --help`/],
    [['--', 'xyzzy'], /There is no command 'xyzzy'/],
    [['xyzzy'], /There is no command 'xyzzy'\. `iscsi-nbd --help` lists them/],
    [['capacity'], /capacity needs <url>\. See `iscsi-nbd capacity --help`/],
    [['discover', '--json'], /discover needs <portal>/],
    [['capacity', URL_LUN0, 'more'], /'more' is one word too many.*iscsi-nbd capacity <url>`/],
    [['capacity', URL_LUN0, '--jsom'], /There is no --jsom\. Did you mean --json\?/],
    [['capacity', URL_LUN0, '-x'], /There is no -x\./],
    [['capacity', URL_LUN0, '--login-timeout'], /--login-timeout needs a value/],
    [['serve', URL_LUN0, '--log-level', 'loud'], /--log-level must be one of .*"info".*not "loud"/],
    [['attach', '--boot', '--from'], /--from must be one of "auto", "cmdline", "ibft"\. See/],
    [['serve', URL_LUN0, '--removal-latncy', '3'], /Did you mean --removal-latency\?/],
    [['serve', URL_LUN0], /serve needs --socket PATH/],
    [['serve', URL_LUN0, '--socket', `/${'x'.repeat(107)}`], /108 bytes; .* at most 107/],
    [['serve', URL_LUN0, '--socket', '/s', '--queue-depth-max', '0'], /from 1 to 4096, not "0"/],
    [['serve', URL_LUN0, '--socket', '/s', '--luns', '1'], /LUN 0 in the URL is not in --luns/],
    [['serve', URL_LUN0, '--socket', '/s', '--session-type', 'boot'], /Omit the flag/],
    [['capacity', URL_LUN0, '--raw', '--json'], /--raw and --json exclude each other/],
    [['capacity', 'disk1'], /does not begin with iscsi:\/\//],
    [['capacity', URL_LUN0, '--config', '/no/such/file'], /\/no\/such\/file cannot be read/],
    [['explain', 'zzz'], /not a code that explain supports/],
  ])('the arguments %j are rejected with status 7', async (argv, pattern) => {
    const { code, out, err } = await run(argv);
    expect(err).toMatch(pattern);
    expect(code).toBe(7);
    expect(out).toBe('');
  });

  it.each(['--password', '--chap-password', '--chap-secret', '--secret'])(
    'a secret on the command line is not shown (%s)',
    async (flag) => {
      const { code, err } = await run(['capacity', URL_LUN0, `${flag}=hunter2`]);
      expect(code).toBe(7);
      expect(err).toMatch(/--chap-secret-file PATH/);
      expect(err).not.toContain('hunter2');
    },
  );
});

it.each([[['--', 'explain', '24']], [['explain', '--', '24']]])(
  'the argument -- before an argument changes nothing: %j',
  async (argv) => {
    const plain = await run(['explain', '24']);
    expect(plain.out).not.toBe('');
    expect(await run(argv)).toEqual(plain);
  },
);

describe('a password in the URL', () => {
  it('a password in the URL is used, with a warning that does not show it', async () => {
    let secret = '';
    const { err } = await run(['discover', 'me%hunter2@h'], {
      discover: async (_portal, options) => {
        secret = options.chap?.secret ?? '';
        return [];
      },
    });
    expect(secret).toBe('hunter2');
    expect(err).toMatch(/^warning: the URL has a password/);
    expect(err).not.toContain('hunter2');
  });
});

describe('explain', () => {
  it.each([
    ['24', 'exitCode', 'authenticationFailed'],
    ['0201', 'loginStatus', 'Authentication failure'],
    ['0x0302', 'loginStatus', 'Out of resources'],
    ['EIO', 'errno', 'i/o error'],
  ])('the code %s is explained as a %s: %s', async (code, kind, name) => {
    const result = await run(['explain', code, '--json']);
    expect(result.code).toBe(0);
    expect(JSON.parse(result.out)).toMatchObject({ kind, name });
  });

  it('the command explains sense codes', async () => {
    const { out } = await run(['explain', '06/29/00', '--json']);
    expect(JSON.parse(out)).toMatchObject({ kind: 'sense', code: '06/29/00' });
    expect((await run(['explain', '5/24'])).out).toMatch(/ILLEGAL REQUEST/);
  });

  it.each([
    [
      '02/04/0a',
      /asymmetric access state/,
      /another path.*transition time that the target reports/,
    ],
    ['02/04/0b', /on standby/, /another path/],
    ['02/04/0c', /unavailable/, /another path/],
    ['05/25/00', /no such logical unit/, /another path/],
    ['06/2a/06', /access state changed/, /target port groups again.*best paths/],
    ['06/2a/07', /change of the access state failed/, /target port groups again.*best paths/],
    ['05/67/0a', /does not set the states of its port groups/, /EIO/],
    ['04/67/0a', /failed to set the states of its port groups/, /EIO/],
    ['standby', /SET TARGET PORT GROUPS/, /--alua explicit/],
    ['non-optimized', /more slowly/, /if no better one can be used/],
    ['transitioning', /changes from one access state/, /wait for the transition time/],
    ['Optimized', /full speed/, /first/],
    ['offline', /cannot be reached/, /controller/],
  ])('%s of asymmetric access is explained with what to do next', async (code, words, next) => {
    const result = JSON.parse((await run(['explain', code, '--json'])).out);
    expect(result.explanation).toMatch(words);
    expect(result.nextStep).toMatch(next);
  });

  it.each(['06/29/00', '06/29/03'])(
    '%s says what happens to writes that were not flushed',
    async (code) => {
      const { nextStep } = JSON.parse((await run(['explain', code, '--json'])).out);
      expect(nextStep).toMatch(
        /are written again.*--retain-writes never.*next flush of each client fails with EIO/,
      );
    },
  );
});

describe('humanBytes', () => {
  it.each([
    [0, '0 B'],
    [512, '512 B'],
    [1024, '1.0 KiB'],
    [1_073_741_824, '1.0 GiB'],
    [1_073_741_823, '1.0 GiB'],
    [1_610_612_736, '1.5 GiB'],
    [2 ** 53, '8.0 PiB'],
  ])('the size of %i bytes is shown as %s', (bytes, text) => {
    expect(humanBytes(bytes)).toBe(text);
  });
});
