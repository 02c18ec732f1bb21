import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import { configOf, loadConfig, loadConfigWith } from '../../src/config/config.js';
import {
  environmentNameOf,
  flagOf,
  OPTION_NAMES,
  OPTION_ROWS,
} from '../../src/config/config-options.js';
import { parseConfigText } from '../../src/config/parse-config.js';

let directory = '';
let serial = 0;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'config-test-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

function load(parts: {
  flags?: Record<string, unknown>;
  environment?: Record<string, string>;
  yaml?: string;
}) {
  serial += 1;
  const configPath = join(directory, `config-${serial}.yaml`);
  writeFileSync(configPath, parts.yaml ?? '');
  const { flags = {}, environment = {} } = parts;
  return loadConfigWith({ flags, environment, configPath }, parseConfigText);
}

function refusalOf(parts: Parameters<typeof load>[0]): string {
  try {
    load(parts);
  } catch (error) {
    expect(error).toBeInstanceOf(UsageError);
    return (error as UsageError).message;
  }
  throw new Error('nothing was thrown');
}

describe('options', () => {
  it('the options have the defaults of the interface', () => {
    const { values, sources } = load({});
    expect(values).toMatchObject({
      sessionType: 'data',
      chapAlgorithms: ['SHA3-256', 'SHA256', 'SHA1', 'MD5'],
      removalLatencySeconds: 60,
      reconnectIntervalSeconds: 5,
      loginTimeoutSeconds: 15,
      noopIntervalSeconds: 5,
      noopTimeoutSeconds: 5,
      abortTimeoutSeconds: 15,
      logicalUnitResetTimeoutSeconds: 30,
      taskTimeoutSeconds: 60,
      queueDepthMax: 128,
      busyPollMicroseconds: 50,
      heldBytesMax: 134_217_728,
      portals: [],
      readOnly: false,
    });
    expect(values).not.toHaveProperty('luns');
    expect(values).not.toHaveProperty('initiatorName');
    expect(sources.queueDepthMax).toBe('default');
  });

  it('the default of each option is valid for its own schema', () => {
    for (const name of OPTION_NAMES) {
      const row = OPTION_ROWS[name];
      if (!('defaultValue' in row) || name === 'portals') continue;
      expect(row.schema.safeParse(row.defaultValue).data, name).toEqual(row.defaultValue);
    }
  });

  it.each([
    ['removalLatencySeconds', 'removal-latency'],
    ['reconnectIntervalSeconds', 'reconnect-interval'],
    ['loginTimeoutSeconds', 'login-timeout'],
    ['chapSecretFile', 'chap-secret-file'],
    ['headerDigest', 'header-digest'],
    ['initialR2T', 'initial-r2t'],
    ['maxOutstandingR2T', 'max-outstanding-r2t'],
    ['busyPollMicroseconds', 'busy-poll'],
  ] as const)('the option %s has the flag --%s', (name, flag) => {
    expect(flagOf(name)).toBe(flag);
  });

  it('an option is taken from flags before environment before file before defaults', () => {
    const yaml = 'queueDepthMax: 1\nmaxConnections: 2\nabortTimeoutSeconds: 3\n';
    const environment = { ISCSI_NBD_QUEUE_DEPTH_MAX: '10', ISCSI_NBD_MAX_CONNECTIONS: '20' };
    const { values, sources } = load({ yaml, environment, flags: { 'queue-depth-max': '100' } });
    expect(values).toMatchObject({
      queueDepthMax: 100,
      maxConnections: 20,
      abortTimeoutSeconds: 3,
      taskTimeoutSeconds: 60,
    });
    expect(sources).toMatchObject({
      queueDepthMax: 'flag',
      maxConnections: 'environment',
      abortTimeoutSeconds: 'file',
      taskTimeoutSeconds: 'default',
    });
  });

  it('the user variables of libiscsi are used, after our own', () => {
    const environment = { LIBISCSI_CHAP_USERNAME: 'a', LIBISCSI_CHAP_TARGET_USERNAME: 'b' };
    expect(load({ environment }).values).toMatchObject({ chapUser: 'a', targetChapUser: 'b' });
    const own = { ...environment, [environmentNameOf('chapUser')]: 'c' };
    expect(load({ environment: own }).values.chapUser).toBe('c');
  });

  it('option values are written as text, numbers, lists and words', () => {
    const yaml = [
      'removalLatencySeconds: never',
      'heldBytesMax: 64 MiB',
      'headerDigest: [CRC32C, None]',
      'dataDigest: crc32c',
      'portals:',
      '  - 192.0.2.2',
      '  - "[2001:db8::2]:3261"',
      'luns: [0, 3]',
      'readOnly: yes',
      'noopIntervalSeconds: 0.5',
    ].join('\n');
    expect(load({ yaml }).values).toMatchObject({
      removalLatencySeconds: Number.POSITIVE_INFINITY,
      heldBytesMax: 67_108_864,
      headerDigest: ['CRC32C', 'None'],
      dataDigest: ['CRC32C'],
      portals: [
        { host: '192.0.2.2', port: 3260 },
        { host: '2001:db8::2', port: 3261 },
      ],
      luns: [0, 3],
      readOnly: true,
      noopIntervalSeconds: 0.5,
    });
    const flags = { luns: '0,3', 'read-only': true, portals: '192.0.2.2:1, h' };
    expect(load({ flags }).values).toMatchObject({
      luns: [0, 3],
      readOnly: true,
      portals: [
        { host: '192.0.2.2', port: 1 },
        { host: 'h', port: 3260 },
      ],
    });
  });
});

describe('a wrong option', () => {
  it('a wrong option of the file is reported with line and key', () => {
    const yaml = '# sessions\nreadOnly: true\nqueueDepthMax: lots\n';
    expect(refusalOf({ yaml })).toMatch(
      /config-\d+\.yaml, line 3: queueDepthMax must be a whole number from 1 to 4096, not "lots"/,
    );
  });

  it('a wrong option of the file is reported even if a flag overrides it', () => {
    const flags = { 'queue-depth-max': '5' };
    expect(refusalOf({ yaml: 'queueDepthMax: -1', flags })).toMatch(/line 1: queueDepthMax/);
  });

  it.each([
    ['removalLatency: 3', 'removalLatencySeconds'],
    ['removal-latency: 3', 'removalLatencySeconds'],
    ['queueDepthMx: 3', 'queueDepthMax'],
    ['readonly: 3', 'readOnly'],
  ])('the unknown option in %s gets a "did you mean"', (yaml, name) => {
    expect(refusalOf({ yaml })).toContain(`Did you mean ${name}?`);
  });

  it('an option name that is like no other gets no guess', () => {
    expect(refusalOf({ yaml: 'zzz: 1' })).toMatch(/line 1: there is no option "zzz"\.$/);
  });

  it.each([
    ['queueDepthMax: [', /line 1: this is not valid YAML/],
    ['- a\n- b', /expected lines of "option: value"/],
    ['queueDepthMax: 1\nqueueDepthMax: 2', /line 2: queueDepthMax is given twice/],
    [
      'noopIntervalSeconds: 0.0001',
      /must be 0 or a number of seconds from 0.1 to 3600, not 0.0001/,
    ],
    ['queueDepthMax: {a: 1}', /line 1: queueDepthMax must be a whole number/],
    ['luns: [[1]]', /line 1: luns must be a list of LUNs/],
    ['luns: [1, 1]', /luns must be a list of LUNs/],
    ['queueDepthMax:', /queueDepthMax must be a whole number .* not null/],
    ['portals: [ "a b" ]', /portals must be a list of portals/],
    ['initiatorName: disk', /initiatorName must be an iSCSI name/],
    ['headerDigest: MD5', /headerDigest must be a list out of None, CRC32C/],
    ['maxRecvDataSegmentLength: 16777216', /from 512 to 16777215/],
  ])('the YAML text %j is rejected', (yaml, pattern) => {
    expect(refusalOf({ yaml })).toMatch(pattern);
  });

  it('an option value that is nested deeper than any stack is rejected in words', () => {
    let deep: unknown = 1;
    for (let level = 0; level < 300_000; level += 1) deep = [deep];
    expect(() => configOf({ queueDepthMax: deep })).toThrow(/a value nested too deeply/);
  });

  it('a wrong option of a flag or the environment is reported by its name there', () => {
    expect(refusalOf({ flags: { 'removal-latency': 'soon' } })).toMatch(
      /^--removal-latency must be a number of seconds from 0 to 604800, or never, not "soon"/,
    );
    expect(refusalOf({ environment: { ISCSI_NBD_READ_ONLY: 'maybe' } })).toMatch(
      /ISCSI_NBD_READ_ONLY must be yes or no/,
    );
  });

  it('RFC 7143 §13.14: FirstBurstLength must not exceed MaxBurstLength', () => {
    const flags = { 'first-burst-length': '8192', 'max-burst-length': '4096' };
    expect(refusalOf({ flags })).toMatch(/firstBurstLength \(8192\) must not be larger/);
    expect(load({ flags: { 'max-burst-length': '4096' } }).values.firstBurstLength).toBe(4096);
  });

  it('several sessions to a portal are paths: multipath off beside them is an error', () => {
    const flags = { 'sessions-per-portal': '2' };
    expect(load({ flags }).values.multipath).toBe('auto');
    expect(refusalOf({ flags: { ...flags, multipath: 'off' } })).toMatch(
      /^sessionsPerPortal \(2\) needs multipath auto/,
    );
  });
});

describe('the configuration file', () => {
  it('a FIFO as configuration is refused, and not waited for', async () => {
    const configPath = join(directory, 'fifo');
    execFileSync('mkfifo', [configPath]);
    const load = () => loadConfig({ flags: {}, environment: {}, configPath });
    await expect(load()).rejects.toThrow(/fifo is not a regular file\. Check --config\./);
  });

  it('eighty thousand keys are refused at once', () => {
    const keys = Array.from({ length: 80_000 }, (_, index) => `key${index}: 1`);
    const begun = performance.now();
    expect(refusalOf({ yaml: keys.join('\n') })).toMatch(/line 1: there is no option "key0"/);
    expect(performance.now() - begun).toBeLessThan(10_000);
  });

  it('the configuration file may be missing, unless it was named', async () => {
    const configPath = join(directory, 'no-such-file');
    const named = loadConfig({ flags: {}, environment: {}, configPath });
    await expect(named).rejects.toThrow(/ENOENT/);
    const { values } = await loadConfig({ flags: {}, environment: {} });
    expect(values.queueDepthMax).toBeGreaterThan(0);
  });

  it('a configuration file is read, and parsed, only if it is there', async () => {
    const configPath = join(directory, 'depth.yaml');
    writeFileSync(configPath, 'queueDepthMax: 7\n');
    const { values } = await loadConfig({ flags: {}, environment: {}, configPath });
    expect(values.queueDepthMax).toBe(7);
  });
});
