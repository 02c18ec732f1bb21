import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual, promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { DAEMON_COMMANDS } from '../../src/cli/command-table.js';
import { OPTION_NAMES, OPTION_ROWS, type OptionName } from '../../src/config/config-options.js';
import { parseConfigText } from '../../src/config/parse-config.js';
import { METHOD_NAMES } from '../../src/control/control-methods.js';
import { EXIT_CODES } from '../../src/errors/exit-codes.js';

const text = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const initial = (row: object) => ('defaultValue' in row ? row.defaultValue : undefined);
const plain = (page: string) => page.replaceAll('\\-', '-');

describe('the example configuration (config.yaml)', () => {
  const example = text('packaging/config.yaml');
  const lines = example.split('\n').filter((line) => /^# [a-z][a-zA-Z0-9]*: /.test(line));
  const options = lines.map((line) => line.slice(2));

  it('the example is valid as it is', () => {
    expect(parseConfigText({ path: 'config.yaml', text: example }).size).toBe(0);
  });

  it('the example names every option that a file may have, each in a valid form', () => {
    const given = parseConfigText({ path: 'config.yaml', text: options.join('\n') });
    const wanted = OPTION_NAMES.filter((name) => name !== 'sessionType');
    expect([...given.keys()].sort()).toEqual([...wanted].sort());
    for (const [name, { value }] of given) {
      expect(OPTION_ROWS[name].schema.safeParse(value).success, name).toBe(true);
    }
  });

  it('the example shows the default values', () => {
    const given = parseConfigText({ path: 'config.yaml', text: options.join('\n') });
    const examples: readonly OptionName[] = ['portals', 'luns'];
    for (const [name, { value }] of given) {
      const row = OPTION_ROWS[name];
      if (!('defaultValue' in row) || examples.includes(name)) continue;
      expect(row.schema.parse(value), name).toEqual(row.defaultValue);
    }
  });
});

describe('the manual pages', () => {
  it('the page iscsi-nbd.yaml(5) describes every option', () => {
    const page = plain(text('man/iscsi-nbd.yaml.5'));
    const told = OPTION_NAMES.filter((name) => page.includes(`.B ${name}\n`));
    expect(told).toEqual([...OPTION_NAMES]);
  });

  it('the page iscsi-nbd.yaml(5) has the default of every option as the option table has it', () => {
    const page = plain(text('man/iscsi-nbd.yaml.5')).split('.SH RUNNING SESSIONS')[0] ?? '';
    const entries = page.split('.TP\n').slice(1);
    for (const name of OPTION_NAMES) {
      const entry = entries.find((one) => one.startsWith(`.B ${name}\n`)) ?? '';
      const told = /\bDefault: (.+)\.\n?$/.exec(entry)?.[1];
      const row = OPTION_ROWS[name];
      const hasDefault = 'defaultValue' in row && !isDeepStrictEqual(row.defaultValue, []);
      expect([name, told !== undefined]).toEqual([name, hasDefault]);
      if (told !== undefined) expect([name, row.schema.parse(told)]).toEqual([name, initial(row)]);
    }
  });

  it('the page iscsi-nbd(8) describes every daemon command, every method and every exit status', () => {
    const page = plain(text('man/iscsi-nbd.8'));
    for (const { usage } of DAEMON_COMMANDS) {
      expect(page).toMatch(new RegExp(`^\\.B .*\\b${usage.split(' ')[0]}\\b`, 'm'));
    }
    const missing = METHOD_NAMES.filter((name) => !page.includes(name));
    expect(missing.filter((name) => !/Connection|AddPersistent/.test(name))).toEqual([]);
    const statuses = Object.values(EXIT_CODES).map(({ code }) => code);
    for (const code of statuses.filter((one) => one < 128)) {
      expect(page).toMatch(new RegExp(`\\b${code} `));
    }
  });
});

describe('the systemd service', () => {
  const unit = text('packaging/systemd/iscsi-nbd.service');

  it('the service waits for readiness, has a watchdog, and accepts notifications of the daemon only', () => {
    expect(unit).toMatch(/^Type=notify$/m);
    expect(unit).toMatch(/^NotifyAccess=main$/m);
    expect(unit).toMatch(/^WatchdogSec=\d+$/m);
  });

  it('the start timeout is longer than the wait of the daemon for its LUNs', () => {
    const seconds = Number(/^TimeoutStartSec=(\d+)$/m.exec(unit)?.[1]);
    expect(seconds).toBeGreaterThan(180);
  });

  it.skipIf(!existsSync('/usr/bin/systemd-analyze'))(
    'the service may do no more than systemd rates at 2.5',
    async () => {
      const root = mkdtempSync(join(tmpdir(), 'unit-'));
      for (const folder of ['etc/systemd/system', 'usr/bin']) {
        mkdirSync(join(root, folder), { recursive: true });
      }
      writeFileSync(join(root, 'etc/systemd/system/iscsi-nbd.service'), unit);
      writeFileSync(join(root, 'usr/bin/iscsi-nbd'), '', { mode: 0o755 });
      const args = ['security', '--offline=true', `--root=${root}`, '--threshold=25'];
      const rated = promisify(execFile)('systemd-analyze', [...args, 'iscsi-nbd.service']);
      await rated.finally(() => rmSync(root, { recursive: true }));
      expect((await rated).stdout).toMatch(/Overall exposure level for iscsi-nbd.service: 2\.5 /);
    },
  );

  it('the service has three capabilities and no others', () => {
    expect(unit.match(/^\w*Capabilit\w*=.*$/gm)).toEqual([
      'CapabilityBoundingSet=CAP_SYS_ADMIN CAP_NET_ADMIN CAP_SYS_RESOURCE',
    ]);
  });

  it('the service preserves what outlives the daemon', () => {
    expect(unit).toMatch(/^RuntimeDirectoryPreserve=yes$/m);
    expect(unit).toMatch(/^KillMode=mixed$/m);
  });
});
