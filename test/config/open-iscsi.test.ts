import { EventEmitter } from 'node:events';
import {
  chmodSync,
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../src/cli/program.js';
import { OPTION_ROWS, type OptionName } from '../../src/config/config-options.js';
import { parseNodeRecord, readNodes } from '../../src/config/open-iscsi.js';
import { fakeBackend } from '../cli/fake-io.js';

/** As `iscsiadm --mode node --op show` of open-iscsi 2.1 prints it, shortened. */
const RECORD = `# BEGIN RECORD 2.1.8
node.name = iqn.2001-04.com.example:disk1
node.tpgt = 1
node.startup = automatic
node.leading_login = No
iface.iscsi_ifacename = default
iface.transport_name = tcp
node.discovery_address = 192.0.2.1
node.discovery_port = 3260
node.session.initial_cmdsn = 0
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.auth.authmethod = CHAP
node.session.auth.username = me
node.session.auth.password = correct horse
node.session.auth.username_in = target
node.session.auth.password_in = battery staple
node.session.timeo.replacement_timeout = 120
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.iscsi.FastAbort = Yes
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.session.iscsi.ERL = 0
node.conn[0].address = 192.0.2.1
node.conn[0].port = 3260
node.conn[0].startup = manual
node.conn[0].timeo.logout_timeout = 15
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 5
node.conn[0].iscsi.MaxXmitDataSegmentLength = 0
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
node.conn[0].iscsi.HeaderDigest = None
# END RECORD
`;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'open-iscsi-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function put(place: string, text: string): void {
  const path = join(directory, place);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

describe('a node record of open-iscsi', () => {
  it('a record becomes a login with the same portal, timers and offers', () => {
    expect(parseNodeRecord(RECORD)).toEqual({
      targetName: 'iqn.2001-04.com.example:disk1',
      portals: [{ host: '192.0.2.1', port: 3260 }],
      isAutomatic: true,
      options: {
        removalLatencySeconds: '120',
        loginTimeoutSeconds: '15',
        noopIntervalSeconds: '5',
        noopTimeoutSeconds: '5',
        abortTimeoutSeconds: '15',
        logicalUnitResetTimeoutSeconds: '30',
        queueDepthMax: '128',
        initialR2T: 'No',
        immediateData: 'Yes',
        firstBurstLength: '262144',
        maxBurstLength: '16776192',
        maxRecvDataSegmentLength: '262144',
        headerDigest: 'None',
      },
      warnings: [],
      chap: { user: 'me', secret: 'correct horse' },
      targetChap: { user: 'target', secret: 'battery staple' },
    });
  });

  it('a record has values that our options accept', () => {
    for (const [name, value] of Object.entries(parseNodeRecord(RECORD).options)) {
      const { schema } = OPTION_ROWS[name as OptionName];
      expect(schema.safeParse(value).success, name).toBe(true);
    }
  });

  it('a record that never gives up (-1) becomes a login that never removes', () => {
    const text = RECORD.replace('replacement_timeout = 120', 'replacement_timeout = -1');
    expect(parseNodeRecord(text).options.removalLatencySeconds).toBe('never');
  });

  // Values of iscsid.conf and the README of open-iscsi, and what usr/initiator.c makes of a 0.
  it.each([
    ['replacement_timeout = 120', 'replacement_timeout = 86400', 'removalLatencySeconds', '86400'],
    ['replacement_timeout = 120', 'replacement_timeout = 0', 'removalLatencySeconds', '0'],
    ['noop_out_interval = 5', 'noop_out_interval = 0', 'noopIntervalSeconds', '0'],
    ['login_timeout = 15', 'login_timeout = 0', 'loginTimeoutSeconds', '30', /login_timeout = 0 /],
    ['noop_out_timeout = 5', 'noop_out_timeout = 0', 'noopTimeoutSeconds', '5', /: 5 is used/],
    [
      ...['replacement_timeout = 120', 'replacement_timeout = 2592000'],
      ...['removalLatencySeconds', '604800', /= 2592000 is not possible here: 604800 is used/],
    ],
    ['login_timeout = 15', 'login_timeout = 7200', 'loginTimeoutSeconds', '3600', /7200/],
    ['abort_timeout = 15', 'abort_timeout = 0', 'abortTimeoutSeconds', '0.1', /abort_timeout = 0 /],
    ['cmds_max = 128', 'nr_sessions = 64', 'sessionsPerPortal', '32', /nr_sessions = 64/],
    ['cmds_max = 128', 'cmds_max = 65536', 'queueDepthMax', '4096', /cmds_max = 65536/],
    [
      ...['MaxBurstLength = 16776192', 'MaxBurstLength = 131072'],
      ...['firstBurstLength', '131072', /FirstBurstLength 262144 is above MaxBurstLength/],
    ],
  ] as [string, string, OptionName, string, RegExp?][])(
    'a record where %s is %s becomes a login that our options accept (%s %s)',
    (before, after, option, value, warning) => {
      const { options, warnings } = parseNodeRecord(RECORD.replace(before, after));
      expect(options[option]).toBe(value);
      expect(OPTION_ROWS[option].schema.safeParse(value).success).toBe(true);
      expect(warnings).toEqual(warning === undefined ? [] : [expect.stringMatching(warning)]);
    },
  );

  it('a record that switches pings off as open-iscsi advises becomes a login without pings', () => {
    const text = RECORD.replace('noop_out_interval = 5', 'noop_out_interval = 0').replace(
      'noop_out_timeout = 5',
      'noop_out_timeout = 0',
    );
    const { options, warnings } = parseNodeRecord(text);
    expect(options.noopIntervalSeconds).toBe('0');
    expect(options.noopTimeoutSeconds).toBeUndefined();
    expect(warnings).toEqual([]);
  });

  it.each([
    ['replacement_timeout = 120', 'replacement_timeout = soon'],
    ['InitialR2T = No', 'InitialR2T = Perhaps'],
    ['HeaderDigest = None', 'HeaderDigest = MD5'],
    ['address = 192.0.2.1\nnode.conn[0].port', 'address = a b\nnode.conn[0].port'],
    ['port = 3260\nnode.conn[0].startup', 'port = 70000\nnode.conn[0].startup'],
  ])('a record whose %j reads %j is rejected', (before, after) => {
    expect(RECORD).toContain(before);
    expect(() => parseNodeRecord(RECORD.replace(before, after))).toThrow();
  });

  it('a record without CHAP has no secrets, whatever else it holds', () => {
    const login = parseNodeRecord(RECORD.replace('authmethod = CHAP', 'authmethod = None'));
    expect(login.chap).toBeUndefined();
    expect(login.targetChap).toBeUndefined();
  });

  it.each(['', 'node.name = x', 'node.name = iqn.2001-04.com.example:a\n'])(
    'a text that is no record is rejected: %j',
    (text) => {
      expect(() => parseNodeRecord(text)).toThrow();
    },
  );
});

describe('a directory of node records', () => {
  it('a directory yields one login a target, with all its portals, in both layouts', () => {
    const other = RECORD.replaceAll('192.0.2.1', '192.0.2.2');
    put('iqn.2001-04.com.example:disk1/192.0.2.1,3260,1/default', RECORD);
    put('iqn.2001-04.com.example:disk1/192.0.2.2,3260,1', other);
    put('iqn.2001-04.com.example:disk2/192.0.2.1,3260,1', RECORD.replace('disk1', 'disk2'));
    put('iqn.2001-04.com.example:disk3/broken', 'garbage');
    const { logins, skipped } = readNodes(directory);
    expect(logins.map((login) => [login.targetName, login.portals.length])).toEqual([
      ['iqn.2001-04.com.example:disk1', 2],
      ['iqn.2001-04.com.example:disk2', 1],
    ]);
    expect(skipped).toHaveLength(1);
  });

  async function importNodes(...flags: string[]) {
    const stdout = new PassThrough();
    const stderr = new PassThrough();
    const io = {
      ...{ stdin: new PassThrough(), stdout, stderr },
      ...{ environment: {}, signals: new EventEmitter() },
    };
    const nodes = join(directory, 'nodes');
    const code = await runCli(
      ['import-open-iscsi', nodes, '--json', '--control', join(directory, 'none'), ...flags],
      io,
      fakeBackend({}),
    );
    return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
  }

  it('the logins are shown without a daemon and without writing a secret (--dry-run)', async () => {
    put('nodes/disk1/portal', RECORD);
    put('nodes/disk2/portal', RECORD.replace('disk1', 'disk2').replace('automatic', 'manual'));
    const secrets = join(directory, 'secrets');
    const { code, out } = await importNodes('--dry-run', '--secrets-directory', secrets);
    expect(code).toBe(0);
    const { imported } = JSON.parse(out);
    expect(imported.map((login: { TargetName: string }) => login.TargetName)).toEqual([
      'iqn.2001-04.com.example:disk1',
    ]);
    expect(out).not.toContain('correct horse');
    expect(statSync(secrets, { throwIfNoEntry: false })).toBeUndefined();
  });

  it('each secret is written to a file for its owner only, and status 20 asks for a daemon', async () => {
    put('nodes/disk1/portal', RECORD);
    const secrets = join(directory, 'secrets');
    const shown = await importNodes('--dry-run', '--secrets-directory', secrets);
    const { chapSecretFile } = JSON.parse(shown.out).imported[0].LoginOptions;
    const { code } = await importNodes('--secrets-directory', secrets);
    expect(code).toBe(20);
    expect(readFileSync(chapSecretFile, 'utf8')).toBe('correct horse\n');
    expect(statSync(chapSecretFile).mode & 0o777).toBe(0o600);
  });

  it('a secret takes the place of a file or link of its name, and what that was gets nothing', async () => {
    put('nodes/disk1/portal', RECORD);
    const secrets = join(directory, 'secrets');
    const shown = await importNodes('--dry-run', '--secrets-directory', secrets);
    const { chapSecretFile, targetChapSecretFile } = JSON.parse(shown.out).imported[0].LoginOptions;
    mkdirSync(secrets, { mode: 0o700 });
    const elsewhere = join(directory, 'elsewhere');
    writeFileSync(elsewhere, 'of somebody');
    const open = [chapSecretFile, `${chapSecretFile}.new`];
    for (const path of open) writeFileSync(path, '');
    for (const path of open) chmodSync(path, 0o666);
    symlinkSync(elsewhere, targetChapSecretFile);
    symlinkSync(elsewhere, `${targetChapSecretFile}.new`);
    const reader = openSync(chapSecretFile, 'r');
    expect((await importNodes('--secrets-directory', secrets)).code).toBe(20);
    expect(readFileSync(elsewhere, 'utf8')).toBe('of somebody');
    expect(readFileSync(reader, 'utf8')).toBe('');
    closeSync(reader);
    for (const [path, secret] of [
      [chapSecretFile, 'correct horse\n'],
      [targetChapSecretFile, 'battery staple\n'],
    ]) {
      expect(readFileSync(path, 'utf8')).toBe(secret);
      expect(lstatSync(path).isFile()).toBe(true);
      expect(lstatSync(path).mode & 0o777).toBe(0o600);
    }
  });

  it('no secret is written to a directory where others may write', async () => {
    put('nodes/disk1/portal', RECORD);
    const secrets = join(directory, 'secrets');
    mkdirSync(secrets);
    chmodSync(secrets, 0o777);
    const { code, err } = await importNodes('--secrets-directory', secrets);
    expect([code, readdirSync(secrets)]).toEqual([7, []]);
    expect(err).toMatch(/Secrets are not written to \S+, where other users may write/);
  });

  it('a bad record is named and skipped, and the others are shown (--dry-run)', async () => {
    const bad = RECORD.replace('disk1', 'disk2').replace('login_timeout = 15', 'login_timeout = x');
    put('nodes/disk1/portal', RECORD.replace('login_timeout = 15', 'login_timeout = 0'));
    put('nodes/disk2/portal', bad);
    const { code, out, err } = await importNodes('--dry-run');
    expect(code).toBe(0);
    const { imported, skipped, warnings } = JSON.parse(out);
    expect(imported).toHaveLength(1);
    expect(skipped).toEqual([expect.stringMatching(/disk2\/portal: its node.*login_timeout must/)]);
    expect(warnings).toEqual([expect.stringMatching(/disk1: .*login_timeout = 0 .*30 is used/)]);
    expect(err).toMatch(/^warning: .*disk2\/portal.*\nwarning: .*disk1: /);
  });

  it('a directory without an automatic record exits with 21', async () => {
    put('nodes/disk1/portal', RECORD.replace('automatic', 'manual'));
    expect((await importNodes()).code).toBe(21);
  });
});
