import { expect, it } from 'vitest';
import { openSession } from '../../src/library.js';
import { NBD, RawNbd } from '../helpers/raw-nbd.js';
import { serveTgt } from '../helpers/served.js';

/** SPC-2 §7.21 (RESERVE(6)), §7.18 (RELEASE(6)): the whole unit for the initiator that asks. */
const [RESERVE_6, RELEASE_6] = [0x16, 0x17];
const EPERM = 1;

it('tgt: requests get EPERM while another initiator has the unit reserved, and succeed afterwards', async () => {
  await using served = await serveTgt({ sizeBytes: 8 << 20 });
  await using other = await openSession(served.tgt.url(), {
    initiatorName: 'iqn.2024-01.com.example:other',
  });
  const command = async (opcode: number): Promise<number> => {
    const cdb = Buffer.from([opcode, 0, 0, 0, 0, 0]);
    return (await other.execute({ lun: 1, cdb, direction: 'none', length: 0 })).status;
  };
  const client = await RawNbd.open(served.socket);
  const data = Buffer.alloc(4096, 1);
  const write = async () => (await client.request(NBD.write, { data })).error;
  expect(await write()).toBe(0);

  expect(await command(RESERVE_6)).toBe(0);
  expect(await write()).toBe(EPERM);
  expect((await client.request(NBD.read, { length: 4096 })).error).toBe(EPERM);
  expect(served.events).toContainEqual(
    expect.objectContaining({
      event: 'ioError',
      operation: 'write',
      errno: 'EPERM',
      reason: expect.stringContaining('another initiator has reserved the unit'),
    }),
  );

  expect(await command(RELEASE_6)).toBe(0);
  expect(await write()).toBe(0);
  expect((await client.request(NBD.read, { length: 4096 })).data.equals(data)).toBe(true);
  client.close();
});
