import { expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { BlockRequest } from '../../src/bridge/block-device.js';
import { CommandBuilder } from '../../src/bridge/command-builder.js';
import { DiskCommand } from '../../src/bridge/disk-command.js';
import type { ScsiAnswer, ScsiRequest } from '../../src/config/contract.js';
import { readBlockCount, readFacts } from '../../src/lun/disk-probe.js';
import { reportLuns } from '../../src/lun/report-luns.js';
import { FACT_QUERIES } from '../../src/scsi/fact-queries.js';
import { queryCapacity, queryInquiry, queryReportLuns } from '../../src/session/scsi-queries.js';
import { diskFacts } from '../helpers/block-client.js';
import { TGT } from './captured.js';

/** ALLOCATION LENGTH of a command (SPC-4, SBC-3); null for one without that field. */
function allocationLength(cdb: Buffer): number | null {
  switch (cdb[0]) {
    case 0x12: // INQUIRY
      return cdb.readUInt16BE(3);
    case 0x1a: // MODE SENSE(6)
      return cdb[4]!;
    case 0x5a: // MODE SENSE(10)
      return cdb.readUInt16BE(7);
    case 0x9e: // SERVICE ACTION IN(16)
      return cdb.readUInt32BE(10);
    case 0xa0: // REPORT LUNS
      return cdb.readUInt32BE(6);
    case 0x00: // TEST UNIT READY
    case 0x25: // READ CAPACITY(10)
      return null;
    default:
      throw new Error(`a command this test does not know: ${cdb.toString('hex')}`);
  }
}

function checkAllocation(cdb: Buffer, expectedBytes: number): void {
  const length = allocationLength(cdb);
  if (length === null) return;
  expect(length & 0xff, `low byte in ${cdb.toString('hex')}`).not.toBe(0);
  expect(length).toBe(expectedBytes);
}

const GOOD = { status: 0, sense: Buffer.alloc(0) };
const refused: ScsiAnswer = {
  status: 2,
  data: Buffer.alloc(0),
  sense: Buffer.from('700005000000000a00000000200000000000', 'hex'),
};

/** Asks `ask` of a device that answers as tgt does, or refuses what has `refuses` as its opcode. */
async function commandsOf(
  ask: (device: {
    execute(request: ScsiRequest): Promise<ScsiAnswer>;
    pause(): Promise<void>;
    sessionId: string;
    ping(): Promise<number>;
    close(): Promise<void>;
  }) => Promise<unknown>,
  options: { readonly refuses?: number; readonly luns?: number } = {},
): Promise<readonly ScsiRequest[]> {
  const sent: ScsiRequest[] = [];
  const list = Buffer.alloc(8 + 8 * (options.luns ?? 1));
  list.writeUInt32BE(list.length - 8, 0);
  for (let lun = 0; lun < (list.length - 8) / 8; lun += 1) {
    list.writeUInt16BE(0x4000 | lun, 8 + 8 * lun);
  }
  const texts = new Map([
    ['120000', TGT.inquiry],
    ['120100', TGT.vpd00],
    ['120180', TGT.vpd80],
    ['120183', TGT.vpd83],
    ['1201b0', TGT.vpdB0],
    ['1201b1', TGT.vpdB1],
    ['1201b2', TGT.vpdB2],
    ['9e1000', TGT.readCapacity16],
    ['250000', TGT.readCapacity10],
    ['1a083f', TGT.modeSense6All],
    ['a00000', list.toString('hex')],
    ['000000', ''],
  ]);
  await ask({
    execute: async (request) => {
      sent.push(request);
      const text = texts.get(request.cdb.toString('hex', 0, 3));
      if (text === undefined || request.cdb[0] === options.refuses) return refused;
      return { ...GOOD, data: Buffer.from(text, 'hex').subarray(0, request.length) };
    },
    pause: async () => undefined,
    sessionId: '0123456789abcdef',
    ping: async () => 0,
    close: async () => undefined,
  });
  expect(sent.length).toBeGreaterThan(0);
  return sent;
}

it('no allocation length has a low byte of 0 in the commands for the facts of a disk', () => {
  for (const query of FACT_QUERIES) {
    const cdb = Buffer.alloc(16);
    query.writeCdb(cdb);
    checkAllocation(cdb, query.allocationBytes);
  }
});

it.each<[string, () => Promise<readonly ScsiRequest[]>]>([
  ['the facts', () => commandsOf((device) => readFacts(device, 0, () => undefined))],
  [
    'the facts, of a disk without MODE SENSE(6)',
    () => commandsOf((device) => readFacts(device, 0, () => undefined), { refuses: 0x1a }),
  ],
  ['the size', () => commandsOf((device) => readBlockCount(device, 0, () => undefined))],
  ['the LUNs', () => commandsOf((device) => reportLuns(device))],
  ['`inquiry`', () => commandsOf((device) => queryInquiry(device, 0, null))],
  ['`inquiry --vpd 83`', () => commandsOf((device) => queryInquiry(device, 0, 0x83))],
  ['`capacity`', () => commandsOf((device) => queryCapacity(device, 0))],
  [
    '`capacity` of an old disk',
    () => commandsOf((device) => queryCapacity(device, 0), { refuses: 0x9e }),
  ],
])('no allocation length has a low byte of 0 in the commands for %s', async (_what, ask) => {
  for (const { cdb, length } of await ask()) checkAllocation(cdb, length);
});

it('no allocation length has a low byte of 0 in REPORT LUNS, whatever the number of LUNs is', async () => {
  for (let luns = 0; luns <= 600; luns += 1) {
    const sent = await commandsOf((device) => queryReportLuns(device), { luns });
    for (const { cdb, length } of sent) checkAllocation(cdb, length);
    const last = sent.at(-1);
    expect(last?.length).toBeGreaterThanOrEqual(8 + 8 * luns);
  }
});

it('no allocation length has a low byte of 0 in GET LBA STATUS', () => {
  const pool = new SlabPool({ slabsMax: 4 });
  const request = new BlockRequest({ isGone: false, blockRequestDone: () => undefined }, pool);
  request.operation = 'blockStatus';
  request.lengthBytes = 1 << 20;
  const command = new DiskCommand({ diskCommandDone: () => undefined }, pool);
  command.lengthBytes = request.lengthBytes;
  new CommandBuilder(pool).part(command, request, diskFacts());
  expect(command.scsi.cdb[0]).toBe(0x9e);
  checkAllocation(command.scsi.cdb, command.scsi.transferLength);
});
