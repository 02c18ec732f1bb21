import { afterEach, describe, expect, it } from 'vitest';
import { BlockClient } from '../../src/bridge/block-client.js';
import { parseTargetUrl } from '../../src/config/target-url.js';
import { requireDisks } from '../../src/lun/find-disks.js';
import { threadRuntime } from '../../src/lun/runtime.js';
import { BlockSession } from '../../src/session/block-session.js';
import { openInformational } from '../../src/session/informational-session.js';
import {
  describeLun,
  queryCapacity,
  queryInquiry,
  queryReportLuns,
} from '../../src/session/scsi-queries.js';
import { newIdentity } from '../../src/session/session-identity.js';
import { TargetDisk } from '../../src/target/disk.js';
import type { TargetServer } from '../../src/target/server.js';
import type { TargetNode } from '../../src/target/target.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { SESSION_OPTIONS } from '../helpers/in-process.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { serveUrl } from '../helpers/served.js';

const MIB = 1 << 20;
const NAME = 'iqn.2001-04.com.example:array';

let node: TargetNode;
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function start(
  luns: Readonly<Record<number, TargetDisk>>,
  lunKeys: 'numbers' | 'fields' = 'numbers',
): Promise<TargetServer> {
  const target = await embeddedTarget({ name: NAME, luns, lunKeys });
  closing.push(() => target.server.close());
  node = target.node;
  return target.server;
}

async function serve(url: string) {
  const served = await serveUrl(url, { reconnectIntervalSeconds: 0.1 });
  closing.push(() => served[Symbol.asyncDispose]());
  return served;
}

async function ask(url: string) {
  const signal = new AbortController().signal;
  const warn = () => undefined;
  const session = await openInformational(parseTargetUrl(url), SESSION_OPTIONS, signal, warn);
  closing.push(() => session.close());
  return session;
}

async function exportsOf({ run, socket }: Awaited<ReturnType<typeof serve>>) {
  const list = await run('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${socket}`);
  const { exports } = JSON.parse(list) as { exports: { 'export-name': string }[] };
  return exports.map((one) => one['export-name']);
}

/** What `luns` shows. */
async function lunsOf(url: string) {
  const session = await ask(url);
  const { view } = await queryReportLuns(session);
  const shown = [];
  for (const field of view) shown.push(await describeLun(session, field));
  return shown;
}

describe('the management LUN of a disk array ("Universal Xport")', () => {
  const array = () => ({
    0: TargetDisk.ram({ sizeBytes: MIB, serial: 'DATA', vendor: 'DELL', product: 'MD3000i' }),
    31: TargetDisk.ram({
      sizeBytes: MIB,
      serial: 'XPORT',
      vendor: 'DELL',
      product: 'Universal Xport',
    }),
  });

  it('the management LUN is left out if no LUN is named', async () => {
    const { portal } = await start(array());
    const served = await serve(`iscsi://${portal}/${NAME}`);
    expect(await exportsOf(served)).toEqual(['0']);
  });

  it('the management LUN is rejected in plain words if it is named', async () => {
    const { portal } = await start(array());
    await expect(serve(`iscsi://${portal}/${NAME}/31`)).rejects.toMatchObject({
      exitCode: 21,
      message: expect.stringMatching(/^LUN 31 is the management LUN of a disk array/),
    });
  });

  it('the management LUN is listed with its type', async () => {
    const { portal } = await start(array());
    expect(await lunsOf(`iscsi://${portal}/${NAME}`)).toEqual([
      { lun: 0, type: 'disk', vendor: 'DELL', product: 'MD3000i', sizeBytes: MIB },
      { lun: 31, type: 'array management', vendor: 'DELL', product: 'Universal Xport' },
    ]);
  });
});

/** LUN fields by their first two bytes (SAM-5 §4.7): flat space addressing has 4000h on top. */
const FLAT = 0x4000;
const disk = (serial: string) => TargetDisk.ram({ sizeBytes: MIB, serial });
const written = (one: TargetDisk) => one.read(0, 4096).equals(Buffer.alloc(4096, 0x33));
const write = (client: RawNbd) => client.request(NBD.write, { data: Buffer.alloc(4096, 0x33) });
type Served = Awaited<ReturnType<typeof serve>>;
const warnings = (served: Served) =>
  served.events.flatMap((one) => (one.event === 'warning' ? [one.message] : []));

describe('a LUN that the target reports by flat space addressing (4005h)', () => {
  it('the LUN is served, also after an outage, from a target that accepts no other address', async () => {
    const [zero, five] = [disk('ZERO'), disk('FIVE')];
    const { portal } = await start({ [FLAT]: zero, [FLAT | 5]: five }, 'fields');
    const served = await serve(`iscsi://${portal}/${NAME}/5`);
    const client = await RawNbd.open(served.socket);
    expect((await write(client)).error).toBe(0);
    expect([written(zero), written(five)]).toEqual([false, true]);
    node.dropConnections();
    const { error } = await client.request(NBD.write, {
      offset: 8192,
      data: Buffer.alloc(4096, 0x44),
    });
    expect(error).toBe(0);
    expect(five.read(8192, 4096).equals(Buffer.alloc(4096, 0x44))).toBe(true);
    expect(warnings(served)).toEqual([]);
  });

  it('the LUN is served beside the others if no LUN is named', async () => {
    const { portal } = await start({ [FLAT]: disk('ZERO'), [FLAT | 5]: disk('FIVE') }, 'fields');
    const served = await serve(`iscsi://${portal}/${NAME}`);
    expect(await exportsOf(served)).toEqual(['0', '5']);
  });

  it('the LUN is listed, and its size and names are read by its number', async () => {
    const { portal } = await start({ [FLAT]: disk('ZERO'), [FLAT | 5]: disk('FIVE') }, 'fields');
    const url = `iscsi://${portal}/${NAME}`;
    expect(await lunsOf(url)).toMatchObject([
      { lun: 0, type: 'disk', sizeBytes: MIB },
      { lun: 5, type: 'disk', sizeBytes: MIB },
    ]);
    const session = await ask(url);
    expect((await queryInquiry(session, 5, 0x80)).view).toMatchObject({ serial: 'FIVE' });
    expect((await queryCapacity(await ask(url), 5)).view).toMatchObject({ lun: 5, sizeBytes: MIB });
    expect((await queryInquiry(await ask(url), 5, null)).view).toMatchObject({ deviceType: 0 });
  });
});

describe('a process that takes over a disk with flat space addressing', () => {
  it('the process probes and writes by the field of the record, before the target reports any', async () => {
    const five = disk('FIVE');
    const server = await start({ [FLAT | 5]: five }, 'fields');
    const session = await ask(`iscsi://${server.portal}/${NAME}`);
    const pause = async () => undefined;
    const [found] = await requireDisks({ ...session, pause }, [5]);
    expect(found).toMatchObject({ lun: 5, field: '4005000000000000' });
    await session.close();
    const { host, port } = parseTargetUrl(`iscsi://${server.portal}/${NAME}`);
    const stack = new BlockSession(
      threadRuntime(),
      { onEvent: () => undefined, signal: new AbortController().signal },
      {
        type: 'data',
        targetName: NAME,
        portals: [{ host, port }],
        identity: newIdentity(),
        firstLogin: 'resume',
        options: SESSION_OPTIONS,
      },
    );
    closing.push(() => stack.close({ force: true }));
    await stack.addDisk(5, found!.facts, found!.field);
    const client = new BlockClient(stack.units[0]!, stack.resources);
    const writing = client.write(0, Buffer.alloc(4096, 0x33));
    stack.handle.initiator.start();
    await writing;
    expect(written(five)).toBe(true);
  });
});

describe('two units of one number, reported as 0005h and as 4005h', () => {
  it('the units are never confused: the usual address is used, the other causes a warning', async () => {
    const [peripheral, flat] = [disk('PERIPHERAL'), disk('FLAT')];
    const { portal } = await start({ [FLAT | 5]: flat, 5: peripheral }, 'fields');
    const served = await serve(`iscsi://${portal}/${NAME}/5`);
    const client = await RawNbd.open(served.socket);
    expect((await write(client)).error).toBe(0);
    expect([written(peripheral), written(flat)]).toEqual([true, false]);
    expect(warnings(served)).toHaveLength(1);
    expect(warnings(served)[0]).toMatch(/^LUN 5 .*0005000000000000.*4005000000000000/);
    const shown = await lunsOf(`iscsi://${portal}/${NAME}`);
    expect(shown.map(({ lun }) => lun)).toEqual([5, '0x4005000000000000']);
  });

  it('the units are never confused when the served one goes and the other comes', async () => {
    const [peripheral, flat] = [disk('SAME'), disk('SAME')];
    const { portal } = await start({ 0: disk('ZERO'), 5: peripheral }, 'fields');
    const served = await serve(`iscsi://${portal}/${NAME}/5`);
    const client = await RawNbd.open(served.socket);
    const luns = node.targets.get(NAME)?.luns;
    luns?.delete(5);
    luns?.set(FLAT | 5, flat);
    node.dropConnections();
    const late = write(client);
    const isBack = () =>
      served.events.some((one) => one.event === 'sessionState' && one.to === 'loggedIn');
    await expect.poll(isBack).toBe(true);
    luns?.delete(FLAT | 5);
    luns?.set(5, peripheral);
    expect((await late).error).toBe(0);
    expect([written(peripheral), written(flat)]).toEqual([true, false]);
  });
});

describe('questions to a LUN', () => {
  const READ_CAPACITY_16 = 0x9e;
  const NO_LUN = { sense: { key: 0x05, asc: 0x25, ascq: 0x00 } };

  it('CLARiiON: a size that comes without data before TEST UNIT READY is read after it', async () => {
    const { portal } = await start({ 0: disk('ZERO') });
    let isTested = false;
    node.faults.onCommand = ({ opcode }) => {
      isTested ||= opcode === 0;
      return opcode === READ_CAPACITY_16 && !isTested ? { goodWithResidual: 32 } : undefined;
    };
    const { view } = await queryCapacity(await ask(`iscsi://${portal}/${NAME}`), 0);
    expect(view.sizeBytes).toBe(MIB);
  });

  it('a size is read from a disk that is becoming ready for 6 s, and not from one on standby', async () => {
    const { portal } = await start({ 0: disk('ZERO') });
    let sense = { key: 0x02, asc: 0x04, ascq: 0x01 };
    node.faults.onCommand = ({ opcode }) => (opcode === 0x12 ? undefined : { sense });
    const session = await ask(`iscsi://${portal}/${NAME}`);
    const asked = queryCapacity(session, 0);
    const timer = setTimeout(() => {
      node.faults.onCommand = undefined;
    }, 6000);
    expect((await asked).view.sizeBytes).toBe(MIB);
    clearTimeout(timer);
    sense = { key: 0x02, asc: 0x04, ascq: 0x0b };
    node.faults.onCommand = ({ opcode }) => (opcode === 0x12 ? undefined : { sense });
    const beganAtMs = performance.now();
    await expect(queryCapacity(session, 0)).rejects.toThrow(/on standby/);
    expect(performance.now() - beganAtMs).toBeLessThan(1000);
  }, 20_000);

  it('the LUNs are listed by the REPORT LUNS well-known LUN if LUN 0 is not supported (05/25)', async () => {
    const { portal } = await start({ 5: disk('FIVE') });
    node.faults.onCommand = ({ lun }) => (lun === 0 ? NO_LUN : undefined);
    expect(await lunsOf(`iscsi://${portal}/${NAME}`)).toMatchObject([{ lun: 5, sizeBytes: MIB }]);
  });
});
