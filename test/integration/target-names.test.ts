import { afterEach, expect, it } from 'vitest';
import { lazyBackend } from '../../src/cli/backend.js';
import { TargetDisk } from '../../src/target/disk.js';
import { CliRun } from '../cli/fake-io.js';
import { embeddedTarget } from '../helpers/embedded-target.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { serveUrl } from '../helpers/served.js';

const NAME = 'iqn.2001-04.com.example:names';
const TYPED = 'IQN.2001-04.COM.EXAMPLE:Names';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function start() {
  const disk = TargetDisk.ram({ sizeBytes: 1 << 20 });
  const target = await embeddedTarget({ name: NAME, luns: { 0: disk } });
  closing.push(() => target[Symbol.asyncDispose]());
  return { disk, target, urlOf: (name: string) => `iscsi://${target.server.portal}/${name}/0` };
}

async function serve(url: string, options = {}) {
  const served = await serveUrl(url, options);
  closing.push(() => served[Symbol.asyncDispose]());
  return served;
}

it('a disk is served, over an outage too, if the name of its target is typed in capital letters', async () => {
  const { disk, target, urlOf } = await start();
  const served = await serve(urlOf(TYPED));
  const client = await RawNbd.open(served.socket);
  const data = Buffer.alloc(4096, 0x21);
  expect((await client.request(NBD.write, { data })).error).toBe(0);
  target.node.dropConnections();
  expect((await client.request(NBD.write, { offset: 8192, data })).error).toBe(0);
  for (const offset of [0, 8192]) expect(disk.read(offset, 4096).equals(data)).toBe(true);
  const warnings = served.events.flatMap((one) => (one.event === 'warning' ? [one.message] : []));
  expect(warnings).toEqual([`the target does not know the name "${TYPED}"; it is "${NAME}" there`]);
  client.close();
});

it('a question finds its target if the name is typed in capital letters, with a warning', async () => {
  const { urlOf } = await start();
  const run = new CliRun(['capacity', urlOf(TYPED), '--json'], lazyBackend);
  expect(await run.result).toBe(0);
  expect(JSON.parse(run.out)).toMatchObject({ sizeBytes: 1 << 20 });
  expect(run.err).toMatch(/^warning: the target does not know the name .*\n$/);
});

it('two spellings of a name never give two writers on one LUN', async () => {
  const { urlOf } = await start();
  for (const [first, second] of [
    [NAME, TYPED],
    [TYPED, NAME],
  ] as const) {
    await serve(urlOf(first));
    await expect(serve(urlOf(second))).rejects.toMatchObject({
      code: 'ERR_LUN_IN_USE',
      exitCode: 15,
    });
    await serve(urlOf(second), { readOnly: true });
    for (const close of closing.splice(1).reverse()) await close();
  }
});
