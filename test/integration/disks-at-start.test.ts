/** A disk that cannot be used yet, or not over this portal, when a command begins. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { lazyBackend } from '../../src/cli/backend.js';
import type { ProductEvent } from '../../src/config/contract.js';
import { parseTargetUrl } from '../../src/config/target-url.js';
import { serve as serveTarget } from '../../src/supervisor/serve.js';
import { startTargetServer } from '../../src/target/server.js';
import { CliRun } from '../cli/fake-io.js';
import { SESSION_OPTIONS } from '../helpers/in-process.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { freePort } from '../helpers/tgt.js';
import {
  answer,
  BECOMING_READY,
  closing,
  disk,
  MIB,
  NAME,
  OPCODE,
  STANDBY,
  serve,
  start,
  warningsOf,
} from '../helpers/troubled-luns.js';

const LOGIN_RESPONSE = 0x23;

vi.setConfig({ testTimeout: 60_000 });

describe('a disk that is not ready at the start', () => {
  const serveIn = async (url: string, signal: AbortSignal, events: ProductEvent[], more = {}) => {
    const folder = await mkdtemp(join(tmpdir(), 'iscsi-nbd-start-'));
    closing.push(() => rm(folder, { recursive: true, force: true }));
    const options = { ...SESSION_OPTIONS, ...more, socketPath: join(folder, 's') };
    const hooks = { onEvent: (event: ProductEvent) => events.push(event), signal };
    const session = await serveTarget(parseTargetUrl(url), options, hooks);
    closing.push(() => session.close({ force: true }));
    return session;
  };

  it('a disk that is becoming ready for 8 s is waited for, and a warning says so', async () => {
    const target = await start({ 0: disk('ZERO') });
    const back = answer(target, 0, BECOMING_READY);
    const timer = setTimeout(back, 8000);
    const served = await serve(`${target.url}/0`);
    clearTimeout(timer);
    expect(warningsOf(served.events)).toEqual([
      expect.stringMatching(/^LUN 0 .*becoming ready.*waiting up to 60 s for it$/),
    ]);
    const client = await RawNbd.open(served.socket);
    expect((await client.request(NBD.read, { length: 4096 })).error).toBe(0);
    client.close();
  });

  it('the wait ends at once with the first signal', async () => {
    const target = await start({ 0: disk('ZERO') });
    answer(target, 0, BECOMING_READY);
    const ending = new AbortController();
    const events: ProductEvent[] = [];
    const served = serveIn(`${target.url}/0`, ending.signal, events);
    served.catch(() => undefined);
    await expect.poll(() => warningsOf(events).length, { timeout: 10_000 }).toBe(1);
    const beganAtMs = performance.now();
    ending.abort(new Error('interrupted'));
    await expect(served).rejects.toThrow('interrupted');
    expect(performance.now() - beganAtMs).toBeLessThan(500);
    expect(target.node.sessions).toHaveLength(0);
  });
});

/**
 * A target with two portals of a group each (ALUA): over the first the disk is on standby. A
 * discovery reports both.
 */
async function twoPortals(standbyGroups: readonly number[] = [1]) {
  const target = await start({ 0: disk('ZERO') });
  const second = await startTargetServer(target.node, { port: await freePort() });
  closing.push(() => second.close());
  const portals = [target.server.portal, second.portal].map((portal) => {
    const [host = '', port] = portal.split(':');
    return { host, port: Number(port) };
  });
  const here = target.node.targets.get(NAME);
  if (here !== undefined) {
    here.portals = portals.map(({ host, port }, at) => ({
      address: host,
      port,
      portalGroupTag: at + 1,
    }));
  }
  target.node.faults.onCommand = ({ tsih, opcode }) => {
    const session = target.node.sessions.find((one) => one.tsih === tsih);
    const isAsked = opcode !== OPCODE.inquiry && opcode !== OPCODE.reportLuns;
    return isAsked && standbyGroups.includes(session?.portalGroupTag ?? 0) ? STANDBY : undefined;
  };
  const [, other] = portals;
  return { target, other: `${other?.host}:${other?.port}` };
}

describe.each([
  ['of --portals', true],
  ['that a discovery tells', false],
])('a disk that is on standby at the first portal, and not at one %s', (_name, isGiven) => {
  it('serve logs in there and serves the disk', async () => {
    const { target, other } = await twoPortals();
    const [host = '', port] = other.split(':');
    const portals = isGiven ? [{ host, port: Number(port) }] : [];
    const served = await serve(`${target.url}/0`, { portals });
    const client = await RawNbd.open(served.socket);
    expect((await client.request(NBD.write, { data: Buffer.alloc(4096, 1) })).error).toBe(0);
    const change = isGiven
      ? { event: 'pathState', portal: other, to: 'ready' }
      : { event: 'portalChanged', to: other };
    expect(served.events).toContainEqual(expect.objectContaining(change));
    expect(warningsOf(served.events).join()).toMatch(/on standby at (this )?portal/);
    client.close();
  });

  it.each([
    ['capacity', { lun: 0, sizeBytes: MIB }],
    ['luns', [{ lun: 0, sizeBytes: MIB }]],
  ])('%s asks there, and a warning says so', async (command, answered) => {
    const { target, other } = await twoPortals();
    const flags = isGiven ? ['--portals', other] : [];
    const run = new CliRun([command, `${target.url}/0`, '--json', ...flags], lazyBackend);
    expect(await run.result).toBe(0);
    expect(JSON.parse(run.out)).toMatchObject(answered);
    expect(run.err).toMatch(/^warning: the disk is on standby at this portal/m);
  });
});

describe('a disk that is on standby at every portal', () => {
  it('serve and capacity say so', async () => {
    const { target } = await twoPortals([1, 2]);
    await expect(serve(`${target.url}/0`)).rejects.toThrow(/LUN 0 cannot be used.*on standby/);
    const run = new CliRun(['capacity', `${target.url}/0`], lazyBackend);
    expect(await run.result).toBe(1);
    expect(run.err).toMatch(/LUN 0: .*on standby/);
  });

  it.each([
    ['the broken rule if no portal lets it in again', 'off', 'ERR_PROTOCOL'],
    ['what the disk says if the other path is not let in', 'auto', 'ERR_SCSI'],
  ] as const)('serve ends with %s (multipath %s)', async (_words, multipath, code) => {
    const { target, other } = await twoPortals();
    const [host = '', port] = other.split(':');
    const portals = [{ host, port: Number(port) }];
    let logins = 0;
    target.node.faults.onSend = (header) => {
      if ((header.readUInt8(0) & 0x3f) !== LOGIN_RESPONSE) return undefined;
      if (header.readUInt16BE(14) !== 0) logins += 1;
      // The first login is over; the task tags of all others are wrong.
      if (logins > 1 || (logins === 1 && header.readUInt16BE(14) === 0)) {
        header.writeUInt32BE(0x7777, 16);
      }
      return undefined;
    };
    const beganAtMs = performance.now();
    await expect(serve(`${target.url}/0`, { portals, multipath })).rejects.toMatchObject({ code });
    expect(performance.now() - beganAtMs).toBeLessThan(20_000);
  });

  it('luns lists each LUN that answers, whichever portal it is active at', async () => {
    const { target } = await twoPortals();
    target.node.setLun(NAME, 1, disk('ONE'));
    target.node.faults.onCommand = ({ tsih, opcode, lun }) => {
      const session = target.node.sessions.find((one) => one.tsih === tsih);
      const isAsked = opcode !== OPCODE.inquiry && opcode !== OPCODE.reportLuns;
      return isAsked && session?.portalGroupTag !== lun + 1 ? STANDBY : undefined;
    };
    const run = new CliRun(['luns', target.url, '--json'], lazyBackend);
    expect(await run.result).toBe(0);
    expect(JSON.parse(run.out)).toMatchObject([
      { lun: 0, sizeBytes: MIB },
      { lun: 1, sizeBytes: MIB },
    ]);
  });
});
