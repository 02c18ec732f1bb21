import { afterEach, describe, expect, it } from 'vitest';
import { openInformational } from '../../src/daemon/direct.js';
import { describeLun, queryReportLuns } from '../../src/daemon/scsi-queries.js';
import { parseTargetUrl } from '../../src/daemon/target-url.js';
import { TargetDisk } from '../../src/target/disk.js';
import { startTargetServer, type TargetServer } from '../../src/target/server.js';
import { TargetNode } from '../../src/target/target.js';
import { SESSION_OPTIONS } from '../helpers/in-process.js';
import { serveUrl } from '../helpers/served.js';
import { freePort } from '../helpers/tgt.js';

const MIB = 1 << 20;
const NAME = 'iqn.2001-04.com.example:array';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function start(luns: Readonly<Record<number, TargetDisk>>): Promise<TargetServer> {
  const node = new TargetNode({
    targets: [{ name: NAME, luns }],
    negotiation: { defaultTime2Wait: 0 },
  });
  const server = await startTargetServer(node, { port: await freePort() });
  closing.push(() => server.close());
  return server;
}

async function serve(url: string) {
  const served = await serveUrl(url);
  closing.push(() => served[Symbol.asyncDispose]());
  return served;
}

/** What `luns` shows. */
async function lunsOf(url: string) {
  const signal = new AbortController().signal;
  const session = await openInformational(parseTargetUrl(url), SESSION_OPTIONS, signal);
  closing.push(() => session.close());
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

  it('is left out where no LUN is named', async () => {
    const { portal } = await start(array());
    const served = await serve(`iscsi://${portal}/${NAME}`);
    const list = await served.run(
      'nbdinfo',
      '--list',
      '--json',
      `nbd+unix:///?socket=${served.socket}`,
    );
    const names = (JSON.parse(list) as { exports: { 'export-name': string }[] }).exports;
    expect(names.map((one) => one['export-name'])).toEqual(['0']);
  });

  it('is refused in plain words where it is named', async () => {
    const { portal } = await start(array());
    await expect(serve(`iscsi://${portal}/${NAME}/31`)).rejects.toMatchObject({
      exitCode: 21,
      message: expect.stringMatching(/^LUN 31 is the management LUN of a disk array/),
    });
  });

  it('is shown as what it is', async () => {
    const { portal } = await start(array());
    expect(await lunsOf(`iscsi://${portal}/${NAME}`)).toEqual([
      { lun: 0, type: 'disk', vendor: 'DELL', product: 'MD3000i', sizeBytes: MIB },
      { lun: 31, type: 'array management', vendor: 'DELL', product: 'Universal Xport' },
    ]);
  });
});
