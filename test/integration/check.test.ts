import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import type { CheckReport } from '../../src/check/check-report.js';
import { lazyBackend } from '../../src/cli/backend.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import type { CommandFault } from '../../src/target/faults.js';
import { CliRun, temporaryDirectory } from '../cli/fake-io.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import {
  HOSTILE_NAME,
  type HostileLink,
  type HostileOptions,
  HostileTarget,
} from '../helpers/hostile-target.js';
import { FROM, type InitiatorPdu, linesOf, operationalAnswer } from '../helpers/peer-pdu.js';
import { checked } from '../helpers/published-schema.js';
import { startTgt } from '../helpers/tgt.js';

/** `check`, the command that a user runs first: what it reports, and that it only reads. */

const MIB = 1 << 20;
const SLOW = 60_000;
const NAME = 'iqn.2001-04.com.example:array';
/**
 * TEST UNIT READY, INQUIRY, MODE SENSE (6, 10), READ CAPACITY (10, 16), READ (10, 16), REPORT LUNS,
 * MAINTENANCE IN: operation codes of SPC-4 and SBC-3 that change nothing.
 */
const READ_ONLY = [0x00, 0x12, 0x1a, 0x25, 0x28, 0x5a, 0x88, 0x9e, 0xa0, 0xa3];
const WORLDWIDE = '6001405aabbccdd00112233445566778';

const closing: { [Symbol.asyncDispose](): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of closing.splice(0)) await one[Symbol.asyncDispose]();
});

const disk = (options: TargetDiskOptions = {}) =>
  TargetDisk.ram({ sizeBytes: 4 * MIB, naa: WORLDWIDE, ...options });

async function array(
  luns: Readonly<Record<number, TargetDisk>>,
  onCommand?: (command: { readonly lun: number; readonly opcode: number }) => CommandFault,
) {
  const faults = onCommand === undefined ? {} : { onCommand };
  const target = await embeddedTarget({ name: NAME, luns }, { faults });
  closing.push(target);
  return target;
}

async function check(url: string, ...flags: readonly string[]) {
  const run = new CliRun(['check', url, '--json', ...flags], lazyBackend);
  const code = await run.result;
  const report = run.out === '' ? null : (checked('check', run.out) as CheckReport);
  return { code, report, err: run.err };
}

function diskOf(report: CheckReport | null, lun: number) {
  const found = report?.luns.find((one) => one.lun === lun)?.disk;
  if (found === undefined || found === null) throw new Error(`LUN ${lun} is no disk`);
  return found;
}

describe('check', { timeout: SLOW }, () => {
  it('check sends no command outside a read-only set, and leaves no session', async () => {
    const cached = disk({ writeCache: 'volatile' });
    const target = await array({ 0: cached, 3: disk({ readOnly: true, serial: 'DEMO0002' }) });
    const { code } = await check(target.url);
    expect(code).toBe(0);
    const { stats } = target.node;
    expect([...stats.commands.keys()].filter((code) => !READ_ONLY.includes(code))).toEqual([]);
    expect(stats.commandCount(0x28)).toBeGreaterThan(2);
    expect([stats.flushes, stats.immediateDataBytes, stats.unsolicitedDataOuts]).toEqual([0, 0, 0]);
    expect(stats.taskManagement).toEqual([]);
    expect(stats.currentSessions).toBe(0);
  });

  it('check reports identity, cache, discard, limits and speed of each disk', async () => {
    const target = await array({
      0: disk({ writeCache: 'volatile', limits: { transferBlocksMax: 1024 } }),
      1: disk({ naa: '', serial: 'ONLY-A-SERIAL', vendor: '' }),
      2: disk({ naa: '', serial: '', thin: false, cachingPage: false, commandQueuing: false }),
    });
    const { code, report } = await check(target.url);
    expect(code).toBe(0);
    expect(diskOf(report, 0)).toMatchObject({
      identity: { strength: 'worldwide', name: `naa.${WORLDWIDE}` },
      writeCache: 'volatile',
      discard: { unmap: true, granularityBytes: 4096, unmapBytesMax: null },
      transferBytesMax: 512 << 10,
    });
    expect(diskOf(report, 2)).toMatchObject({
      identity: { strength: 'none', name: null },
      writeCache: 'notTold',
      discard: { unmap: false },
      commandQueuing: false,
    });
    for (const { speed } of [diskOf(report, 0), diskOf(report, 2)]) {
      expect(speed.map(({ sizeBytes }) => sizeBytes)).toEqual([4096, 262_144]);
      for (const { reads, bytesPerSecond } of speed) {
        expect(Math.min(reads, bytesPerSecond)).toBeGreaterThan(0);
      }
    }
    expect(diskOf(report, 2).speed[0]?.inFlight).toBe(1);
    const options = report?.advice.map(({ option }) => option);
    expect(options).toContain('--allow-unidentified');
    expect(report?.roundTrip.count).toBe(10);
    expect(report?.host).toMatchObject({ interface: 'lo', localAddress: '127.0.0.1' });
    expect(report?.host.mtuBytes).toBeGreaterThan(1000);
  });

  it('check names a LUN without a medium with its reason, and reports the others', async () => {
    const noMedium = ({ lun, opcode }: { readonly lun: number; readonly opcode: number }) =>
      lun === 1 && opcode !== 0x12 && opcode !== 0xa0
        ? { sense: { key: 0x02, asc: 0x3a, ascq: 0 } }
        : undefined;
    const target = await array({ 0: disk(), 1: disk(), 2: disk() }, noMedium);
    const { code, report } = await check(target.url);
    expect(code).toBe(0);
    expect(report?.luns.map(({ disk: found }) => found !== null)).toEqual([true, false, true]);
    expect(report?.luns[1]?.error).toMatch(/LUN 1 cannot be used: .*no medium/);
    const alone = await check(`${target.url}/1`);
    expect(alone.code).toBe(1);
    expect(alone.report?.luns).toHaveLength(1);
    expect(alone.err).toMatch(/no medium/);
    const nobody = await check(`${target.url}/9`);
    expect(nobody.code).toBe(1);
    expect(nobody.report?.luns[0]?.error).toMatch(/no LUN 9 for this initiator/);
  });

  it('check says what a target with CHAP and digests can do, and recommends no less', async () => {
    const chap = { user: 'me', secret: 'correct horse battery' };
    const target = await embeddedTarget({ name: NAME, luns: { 0: disk() }, chap });
    closing.push(target);
    const environment = { LIBISCSI_CHAP_USERNAME: chap.user, LIBISCSI_CHAP_PASSWORD: chap.secret };
    const run = new CliRun(['check', target.url, '--json'], lazyBackend, environment);
    expect(await run.result).toBe(0);
    const { login } = checked('check', run.out) as CheckReport;
    expect(login).toMatchObject({
      authentication: 'CHAP',
      headerDigest: 'None',
      digestsAccepted: { header: true, data: true },
    });
    expect(run.out).not.toContain(chap.secret);
    const without = await check(target.url);
    expect([without.code, without.report]).toEqual([24, null]);
  });

  it('check lists the port groups of a disk with ALUA, and which of them this portal is of', async () => {
    const target = await hostile({ fullFeature: answerAlua });
    const { code, report } = await check(target, '--header-digest', 'None');
    expect(code).toBe(0);
    expect(diskOf(report, 0).portGroups).toEqual({
      changedBy: 'target',
      groups: [
        { group: 1, state: 'optimized', preferred: true, ports: [1], isOurs: false },
        { group: 2, state: 'standby', preferred: false, ports: [3, 4], isOurs: true },
      ],
      error: null,
    });
    expect(report?.advice).toContainEqual({
      option: null,
      why: expect.stringMatching(/LUN 0 is better reached over another port group/),
    });
  });

  it('check lists what a target does against the RFC, with its section (gotgt: ISID 0)', async () => {
    const target = await hostile({
      login: (pdu, link) => {
        const bytes = link.encodeLogin(pdu, answerOf(pdu));
        bytes.fill(0, 8, 14);
        link.write(bytes);
        if ((bytes[1]! & 0x83) === 0x83) link.loggedIn();
        return true;
      },
    });
    const { code, report } = await check(target);
    expect(code).toBe(0);
    expect(report?.quirks).toContainEqual(
      expect.objectContaining({ quirk: 'login-isid', section: '11.13' }),
    );
  });

  it('check ends at the first SIGINT, and its session with it', async () => {
    let asked = () => {};
    const isAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const target = await array({ 0: disk() }, ({ opcode }) => {
      if (opcode === 0x28) asked();
      return undefined;
    });
    const run = new CliRun(['check', target.url], lazyBackend);
    await isAsked;
    run.signals.emit('SIGINT');
    expect(await run.result).toBe(130);
    expect(target.node.stats.currentSessions).toBe(0);
    expect(run.out).toBe('');
  });

  it('the report for people fits 80 columns, and names each LUN and the advice', async () => {
    const target = await array({ 0: disk(), 1: disk({ naa: '', serial: '' }) });
    const run = new CliRun(['check', target.url], lazyBackend);
    Object.assign(run.stdout, { isTTY: true, columns: 80 });
    expect(await run.result).toBe(0);
    const lines = run.out.split('\n');
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
    expect(run.out).toMatch(/^LUN 0 {2}disk {2}4\.0 MiB {2}ISCSINBD EMBEDDED DISK 0001$/m);
    expect(run.out).toMatch(/^ {2}- --allow-unidentified: LUN 1 has no name and no serial/m);
  });

  it('check of tgt: its controller is not listed as a disk, its disks are, and no byte of them changes', async () => {
    const file = `${temporaryDirectory()}/disk`;
    const tgt = await startTgt({
      luns: [{ file, sizeBytes: 8 * MIB, params: { scsi_sn: 'tgt-1' } }, { sizeBytes: MIB }],
    });
    closing.push(tgt);
    const sum = () => createHash('sha256').update(readFileSync(file)).digest('hex');
    const before = sum();
    const { code, report } = await check(tgt.url().replace(/\/1$/, ''));
    expect(code).toBe(0);
    expect(report?.luns.map(({ type, error }) => [type, error])).toEqual([
      ['storage array controller', null],
      ['disk', null],
      ['disk', null],
    ]);
    expect(report?.target).toMatchObject({ name: tgt.iqn, portalGroupTag: 1 });
    expect(diskOf(report, 1)).toMatchObject({ writeCache: 'volatile', fua: true });
    expect(sum()).toBe(before);
  });
});

async function hostile(options: HostileOptions): Promise<string> {
  const target = await HostileTarget.start(options);
  closing.push(target);
  return `iscsi://127.0.0.1:${target.port}/${HOSTILE_NAME}/0`;
}

/** What a correct target answers to a login request. */
function answerOf(pdu: InitiatorPdu): readonly string[] {
  const isSecurity = (pdu.flags & 0x0c) === 0;
  if (isSecurity) return ['TargetPortalGroupTag=1', 'AuthMethod=None'];
  return operationalAnswer({}, linesOf(pdu));
}

/** By hand after SPC-4: TPGS 01b, the port group of the port in page 83h, and two groups. */
function answerAlua(pdu: InitiatorPdu, link: HostileLink): boolean {
  const cdb = pdu.header.subarray(32);
  const send = (hex: string, text = '') => {
    const data = Buffer.concat([Buffer.from(hex.replaceAll(' ', ''), 'hex'), Buffer.from(text)]);
    link.sendData(pdu, data.subarray(0, pdu.word20));
    return true;
  };
  if (pdu.opcode !== FROM.scsiCommand) return false;
  if (cdb[0] === 0x12 && cdb[1] === 0) {
    return send('00 00 06 02 1f 10 00 02', 'EXAMPLE ALUA DISK       0001');
  }
  if (cdb[0] === 0x12 && cdb[2] === 0x83) {
    return send('00 83 00 14 01 03 00 08 6001234567890abc 01 15 00 04 0000 0002');
  }
  const isGroups = cdb[0] === 0xa3 && cdb[1] === 0x0a;
  return isGroups
    ? send('0000001c 80 0f 0001 00 00 00 01 0000 0001 02 0f 0002 00 00 00 02 0000 0003 0000 0004')
    : false;
}
