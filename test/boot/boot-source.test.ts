import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, describe, expect, it } from 'vitest';
import { parseBootCommandLine } from '../../src/boot/boot-source-cmdline.js';
import { readBootSource } from '../../src/boot/read-boot-source.js';

const TARGET = 'iqn.2001-04.com.example:storage.root';
const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function source(line: string) {
  const found = parseBootCommandLine(`BOOT_IMAGE=/vmlinuz ro quiet ${line}\n`);
  if (found === null || found === 'firmware') throw new Error(`found ${found}`);
  return found;
}

/** A tree as the module iscsi_ibft makes it: `target0/port` and so on; values end in a newline. */
function table(entries: Readonly<Record<string, Readonly<Record<string, string>>>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'ibft-'));
  folders.push(folder);
  for (const [name, values] of Object.entries(entries)) {
    mkdirSync(join(folder, name));
    for (const [key, value] of Object.entries(values)) {
      writeFileSync(join(folder, name, key), `${value}\n`);
    }
  }
  return folder;
}

const TARGET0 = {
  index: '0',
  flags: '3',
  'ip-addr': '192.0.2.10',
  port: '3260',
  lun: '00000000',
  'chap-type': '0',
  'nic-assoc': '0',
  'target-name': TARGET,
};
const INITIATOR = { index: '0', flags: '3', 'initiator-name': 'iqn.2010-04.org.ipxe:host' };
const ETHERNET0 = {
  index: '0',
  flags: '3',
  'ip-addr': '192.0.2.77',
  'subnet-mask': '255.255.255.0',
  gateway: '192.0.2.1',
  dhcp: '192.0.2.2',
  vlan: '0',
  mac: '52:54:00:12:34:56',
};

function ibft(target: Readonly<Record<string, string>>, more = {}) {
  const path = table({
    initiator: INITIATOR,
    ethernet0: ETHERNET0,
    target0: { ...TARGET0, ...target },
    ...more,
  });
  return readBootSource('ibft', { ibft: path, commandLine: '/nowhere' });
}

describe('iscsi_nbd= on the kernel command line', () => {
  it('iscsi_nbd= names portal, target and LUN by URL, and options after commas', () => {
    const line = `iscsi_nbd=iscsi://[2001:db8::1]:3261/${TARGET}/7,removal-latency=never,read-only`;
    expect(source(line)).toMatchObject({
      portal: { host: '2001:db8::1', port: 3261 },
      targetName: TARGET,
      lun: 7,
      options: { removalLatencySeconds: 'never', readOnly: 'yes' },
      warnings: [],
    });
  });

  it('iscsi_nbd.NAME=VALUE sets an option too, and its value may be a list', () => {
    const line = `iscsi_nbd.ibft=no iscsi_nbd.header-digest=CRC32C,None iscsi_nbd=iscsi://192.0.2.1/${TARGET}/0`;
    expect(source(line).options).toEqual({ headerDigest: 'CRC32C,None' });
  });

  it('a password on the command line causes a warning that every user can read it, and is never shown', () => {
    const found = source(`iscsi_nbd=iscsi://me%s3cret,x@192.0.2.1/${TARGET}/0`);
    expect(found.chap?.user).toBe('me');
    expect(found.chap?.secret.reveal()).toBe('s3cret,x');
    expect(found.warnings.join()).toContain('every user');
    expect(inspect(found, { depth: 9 }) + JSON.stringify(found)).not.toContain('s3cret');
  });

  it.each([
    ['no LUN', `iscsi_nbd=iscsi://192.0.2.1/${TARGET}`, /names no LUN/],
    ['an empty value', 'iscsi_nbd=', /target URL/],
    ['the name alone', 'iscsi_nbd', /target URL/],
    ['two', `iscsi_nbd=iscsi://h/${TARGET}/0 iscsi_nbd=iscsi://h/${TARGET}/1`, /twice/],
    ['an unknown option', `iscsi_nbd=iscsi://h/${TARGET}/0,removal-latncy=3`, /removal-latency/],
    ['an option twice', `iscsi_nbd.luns=1 iscsi_nbd=iscsi://h/${TARGET}/0`, /no option 'luns'/],
    [
      'an option in both places',
      `iscsi_nbd.read-only iscsi_nbd=iscsi://h/${TARGET}/0,readOnly`,
      /twice/,
    ],
    ['a session type', `iscsi_nbd=iscsi://h/${TARGET}/0,session-type=data`, /no option/],
    ['a wrong port after a password', `iscsi_nbd=iscsi://u%s3cret/x,y@h:0/${TARGET}/0`, /port/],
    ['a port over 65535', `iscsi_nbd=iscsi://h:65536/${TARGET}/0`, /port/],
  ])(
    'iscsi_nbd= with %s is rejected with a message that names the fault',
    (_what, line, message) => {
      expect(() => source(line)).toThrow(message);
      expect(() => source(line)).not.toThrow(/s3cret/);
    },
  );

  it('parameters after -- are ignored, as they are for the init process', () => {
    expect(parseBootCommandLine(`quiet -- iscsi_nbd=iscsi://h/${TARGET}/0`)).toBeNull();
  });
});

describe("dracut's parameters (dracut.cmdline(7), iSCSI)", () => {
  it.each([
    [`netroot=iscsi:192.0.2.5::::${TARGET}`, { host: '192.0.2.5', port: 3260 }, 0],
    [`netroot=iscsi:192.0.2.5:6:3261:4:${TARGET}`, { host: '192.0.2.5', port: 3261 }, 4],
    [`netroot=iscsi:[2001:db8::5]:::2:${TARGET}`, { host: '2001:db8::5', port: 3260 }, 2],
    [`netroot=iscsi:@192.0.2.5::3260::${TARGET}`, { host: '192.0.2.5', port: 3260 }, 0],
    [
      `netroot=iscsi:san.example.com::3260:::1:${TARGET}`,
      { host: 'san.example.com', port: 3260 },
      1,
    ],
    ['netroot=iscsi:192.0.2.5::::naa.6001405abcdef012', { host: '192.0.2.5', port: 3260 }, 0],
  ])('the boot source is read from %s', (line, portal, lun) => {
    const targetName = line.includes('naa.') ? 'naa.6001405abcdef012' : TARGET;
    expect(source(line)).toMatchObject({ portal, lun, targetName, warnings: [] });
  });

  it('netroot= takes the user names and passwords of both sides before the server', () => {
    const { chap } = source(`netroot=iscsi:joe:p@ss:tgt:back@192.0.2.5::::${TARGET}`);
    expect([chap?.user, chap?.secret.reveal()]).toEqual(['joe', 'p@ss']);
    expect([chap?.target?.user, chap?.target?.secret.reveal()]).toEqual(['tgt', 'back']);
  });

  it('rd.iscsi.* parameters fill in what netroot= omits', () => {
    const found = source(
      'netroot=iscsi: rd.iscsi.initiator=iqn.2001-04.com.example:me rd.iscsi.target.ip=192.0.2.9 ' +
        `rd.iscsi.target.name=${TARGET} rd.iscsi.target.port=3261 rd.iscsi.target.group=1 ` +
        'rd.iscsi.username=joe rd.iscsi.password=pw rd.iscsi.in.username=t rd.iscsi.in.password=qw',
    );
    expect(found).toMatchObject({
      portal: { host: '192.0.2.9', port: 3261 },
      targetName: TARGET,
      lun: 0,
      initiatorName: 'iqn.2001-04.com.example:me',
    });
    expect([found.chap?.user, found.chap?.secret.reveal()]).toEqual(['joe', 'pw']);
    expect([found.chap?.target?.user, found.chap?.target?.secret.reveal()]).toEqual(['t', 'qw']);
  });

  it("rd.iscsi.param= understands open-iscsi's own advice for a root disk", () => {
    const advice = ['noop_out_interval=0', 'noop_out_timeout=0', 'login_timeout=0']
      .map((setting) => `rd.iscsi.param=node.conn[0].timeo.${setting}`)
      .join(' ');
    const found = source(
      `netroot=iscsi:192.0.2.1::::${TARGET} ${advice} ` +
        'rd.iscsi.param=node.session.timeo.replacement_timeout=9999999',
    );
    expect(found.options).toEqual({
      noopIntervalSeconds: '0',
      loginTimeoutSeconds: '30',
      removalLatencySeconds: '604800',
    });
    expect(found.warnings.slice(0, 2)).toEqual([
      expect.stringMatching(/^rd\.iscsi\.param=node.*login_timeout = 0 .*30 is used/),
      expect.stringMatching(/replacement_timeout = 9999999 .*604800 is used/),
    ]);
  });

  it('rd.iscsi.param= sets the open-iscsi settings that have an option, and warns of the others', () => {
    const found = source(
      `netroot=iscsi:192.0.2.5::::${TARGET} ` +
        'rd.iscsi.param=node.session.timeo.replacement_timeout=-1 ' +
        'rd.iscsi.param=node.session.queue_depth=32 "rd.iscsi.param=node.session.cmds_max=64"',
    );
    expect(found.options).toEqual({ removalLatencySeconds: 'never', queueDepthMax: '64' });
    expect(found.warnings).toEqual([
      'rd.iscsi.param=node.session.queue_depth= means nothing here.',
    ]);
  });

  it('other servers of the same LUN become further portals', () => {
    const netroots = ['192.0.2.5', '[2001:db8::5]'].map((at) => `netroot=iscsi:${at}::::${TARGET}`);
    const found = source(netroots.join(' '));
    expect(found.portal.host).toBe('192.0.2.5');
    expect(found.options).toEqual({ portals: '[2001:db8::5]:3260' });
  });

  it.each(['rd.iscsi.firmware', 'rd.iscsi.firmware=1 netroot=iscsi'])(
    'the parameters leave the choice to the firmware: %s',
    (line) => expect(parseBootCommandLine(line)).toBe('firmware'),
  );

  it.each([
    'rd.iscsi.firmware=0',
    'netroot=nfs:192.0.2.5:/root',
    'root=/dev/nbd0 netroot=dhcp',
    '',
  ])('a command line without a boot LUN yields no source: %j', (line) =>
    expect(parseBootCommandLine(line)).toBeNull(),
  );

  it.each([
    [`netroot=iscsi:192.0.2.5:17:::${TARGET}`, /not 6/],
    [`netroot=iscsi:192.0.2.5::0::${TARGET}`, /port is 0/],
    [`netroot=iscsi:192.0.2.5::99999::${TARGET}`, /port is not/],
    [`netroot=iscsi:192.0.2.5:::x:${TARGET}`, /LUN is not/],
    [`netroot=iscsi:192.0.2.5:::99999999:${TARGET}`, /LUN is not/],
    [`netroot=iscsi:192.0.2.5:${TARGET}`, /0 fields/],
    [`netroot=iscsi:a..b::::${TARGET}`, /server/],
    [`netroot=iscsi:[2001:db8::zz]::::${TARGET}`, /server/],
    ['netroot=iscsi:192.0.2.5::::disk1', /no target name/],
    ['netroot=iscsi:192.0.2.5::::iqn.2001-99.com.example:x', /month/],
    [`netroot=iscsi:s3cret@192.0.2.5::::${TARGET}`, /user:password/],
    [`netroot=iscsi:joe:s3cret:t@192.0.2.5::::${TARGET}`, /user:password/],
    [`netroot=iscsi:joe:s3cret:t:@192.0.2.5::::${TARGET}`, /no password/],
    [`netroot=iscsi:::::${TARGET}`, /no server/],
    ['netroot=iscsi: rd.iscsi.target.ip=192.0.2.1', /target\.name/],
    [`netroot=iscsi:::::${TARGET} rd.iscsi.target.ip=h/\u007fx`, /rd\.iscsi\.target\.ip/],
    [`netroot=iscsi:h::::${TARGET} rd.iscsi.username=joe`, /together/],
    [`netroot=iscsi:h::::${TARGET} rd.iscsi.in.password=s3cret`, /itself only/],
    [`netroot=iscsi:h::::${TARGET} rd.iscsi.initiator=me`, /rd\.iscsi\.initiator/],
    [`netroot=iscsi:h::::${TARGET} rd.iscsi.param=x`, /name=value/],
    [`netroot=iscsi:h::::${TARGET} netroot=iscsi:h:::1:${TARGET}`, /different LUNs/],
    [`netroot=iscsi:h::::${TARGET} rd.iscsi.target.group=65536`, /65535/],
  ])('the parser rejects %s without showing a secret', (line, message) => {
    expect(() => source(line)).toThrow(message);
    expect(() => source(line)).not.toThrow(/s3cret/);
  });
});

describe('the iBFT in /sys/firmware/ibft', () => {
  it('the table yields initiator, interface and target', () => {
    expect(ibft({})).toMatchObject({
      origin: "the firmware's iSCSI boot table (target0)",
      portal: { host: '192.0.2.10', port: 3260 },
      targetName: TARGET,
      lun: 0,
      initiatorName: 'iqn.2010-04.org.ipxe:host',
      nic: { mac: '52:54:00:12:34:56', address: '192.0.2.77', gateway: '192.0.2.1' },
    });
    expect(ibft({}).chap).toBeUndefined();
  });

  it.each([
    ['1', {}],
    ['2', { 'rev-chap-name': 'san', 'rev-chap-name-secret': 'reverse-s3cret' }],
  ])(
    'the table yields the CHAP names and secrets of chap-type %s, which are not shown',
    (type, more) => {
      const found = ibft({
        'chap-type': type,
        'chap-name': 'joe',
        'chap-secret': 's3cret',
        ...more,
      });
      expect([found.chap?.user, found.chap?.secret.reveal()]).toEqual(['joe', 's3cret']);
      expect(found.chap?.target?.user).toBe(type === '2' ? 'san' : undefined);
      expect(found.chap?.target?.secret.reveal()).toBe(type === '2' ? 'reverse-s3cret' : undefined);
      expect(inspect(found, { depth: 9 })).not.toContain('s3cret');
    },
  );

  it.each([
    ['00000000', 0],
    ['01000000', 1],
    // 12h in the second byte, which the kernel prints as two digits.
    ['012000000', 0x12],
    ['0ff000000', 255],
    ['412c000000', 0x12c],
    ['405000000', 5],
  ])('the LUN %s, bytes without leading zeros, is read as %d', (text, lun) => {
    expect(ibft({ lun: text }).lun).toBe(lun);
  });

  it('the target that the firmware started from is preferred, then the first valid one', () => {
    const other = { ...TARGET0, 'target-name': `${TARGET}2` };
    const chosen = (first: string, second: string) =>
      ibft({ flags: first }, { target1: { ...other, flags: second } }).targetName;
    expect(chosen('1', '3')).toBe(`${TARGET}2`);
    expect(chosen('1', '1')).toBe(TARGET);
    expect(chosen('0', '1')).toBe(`${TARGET}2`);
    expect(chosen('2', '1')).toBe(`${TARGET}2`);
    expect(() => chosen('0', '0')).toThrow(/no valid target/);
  });

  it('a table without initiator, interface, port and LUN is valid', () => {
    const path = table({
      target0: { flags: '3', 'ip-addr': '2001:db8::9', 'target-name': TARGET },
    });
    const found = readBootSource('auto', { ibft: path, commandLine: '/proc/cmdline' });
    expect(found).toMatchObject({ portal: { host: '2001:db8::9', port: 3260 }, lun: 0 });
    expect(found.initiatorName).toBeUndefined();
    expect(found.nic).toBeUndefined();
  });

  it.each([
    ['ip-addr', '', /not set/],
    ['ip-addr', '0.0.0.0', /not set/],
    ['ip-addr', '::', /not set/],
    ['ip-addr', '192.0.2.10 x', /ip-addr/],
    ['port', '0', /port/],
    ['port', '65536', /65535/],
    ['port', '-1', /port/],
    ['lun', '00000001', /LUN/],
    ['lun', 'zz', /LUN/],
    ['target-name', 'disk', /target-name/],
    ['target-name', '', /target-name/],
    ['target-name', 'iqn.2001-04.com.example:\u0007', /control/],
    ['target-name', `iqn.2001-04.com.example:${'x'.repeat(5000)}`, /long/],
    ['chap-type', '3', /chap-type/],
    ['chap-type', '1', /chap-name/],
    ['flags', 'x', /flags/],
    ['nic-assoc', '300', /nic-assoc/],
  ])('the value %s = %j is rejected with the name of its file', (key, value, message) => {
    expect(() => ibft({ [key]: value })).toThrow(message);
  });

  it.each([
    ['initiator', { ...INITIATOR, 'initiator-name': 'me' }, /initiator\/initiator-name/],
    ['ethernet0', { ...ETHERNET0, mac: 'x' }, /ethernet0\/mac/],
    ['ethernet0', { ...ETHERNET0, gateway: 'a b' }, /ethernet0\/gateway/],
    ['ethernet0', { ...ETHERNET0, vlan: '4096' }, /ethernet0\/vlan/],
  ])('a wrong value in %s is rejected', (name, values, message) => {
    expect(() => ibft({}, { [name]: values })).toThrow(message);
  });
});

describe('readBootSource', () => {
  function places(line: string, target: Readonly<Record<string, string>> | null) {
    const commandLine = join(table({}), 'cmdline');
    writeFileSync(commandLine, line);
    return { commandLine, ibft: target === null ? '/nowhere' : table({ target0: target }) };
  }

  it('the sources are read in order: the command line, then the firmware', () => {
    const url = 'iscsi_nbd=iscsi://192.0.2.1/iqn.2001-04.com.example:mine/1';
    expect(readBootSource('auto', places(url, TARGET0)).lun).toBe(1);
    expect(readBootSource('ibft', places(url, TARGET0)).targetName).toBe(TARGET);
    expect(readBootSource('auto', places('quiet', TARGET0)).targetName).toBe(TARGET);
    expect(readBootSource('cmdline', places('rd.iscsi.firmware', TARGET0)).targetName).toBe(TARGET);
  });

  it.each([
    ['auto', 'quiet'],
    ['cmdline', 'quiet'],
    ['ibft', 'quiet'],
    ['auto', 'rd.iscsi.firmware'],
  ] as const)(
    'a missing boot source with --from %s exits with 21 and says what to add (%s)',
    (from, line) => {
      expect(() => readBootSource(from, places(line, null))).toThrow(
        expect.objectContaining({ exitCode: 21, message: expect.stringContaining('iscsi') }),
      );
    },
  );
});
