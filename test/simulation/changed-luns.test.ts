/** LUNs that change places: a target may tell one of them, and REPORT LUNS takes the news from all. */
import { expect, test } from 'vitest';
import { queryReportLuns } from '../../src/session/scsi-queries.js';
import { TargetDisk, type TargetDiskOptions } from '../../src/target/disk.js';
import { answerTo, ask, EIO, endWell, newWorld, read, write } from './asked.js';
import { TARGET_NAME, type World } from './world.js';

const MIB = 1 << 20;
const MODE_CHANGED = { asc: 0x2a, ascq: 0x01 };
const LUNS_CHANGED = { asc: 0x3f, ascq: 0x0e };
const REPORT_LUNS = 0xa0;
const INQUIRY = 0x12;
const WRITE_10 = 0x2a;
const NAMELESS = { sizeBytes: MIB, serial: '', naa: '' } as const;

function exchange(world: World, options: TargetDiskOptions): TargetDisk {
  const decoy = TargetDisk.ram({ sizeBytes: MIB, ...options });
  decoy.announcesChanges = false;
  world.node.targets.get(TARGET_NAME)?.luns.set(1, decoy);
  return decoy;
}

test.each([4, 6, 8])(
  'a disk exchanged at command %i of a probe, reported to its neighbour only, gets no held write',
  async (at) => {
    const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB } });
    const [neighbour, client] = [world.newClient(0), world.newClient(1)];
    world.node.raiseAttention(TARGET_NAME, 1, MODE_CHANGED);
    let questions = 0;
    let decoy: TargetDisk | null = null;
    world.commands.add(({ lun, lba }) => {
      if (lun !== 1 || lba !== null || decoy !== null) return undefined;
      questions += 1;
      if (questions !== at) return undefined;
      decoy = exchange(world, { serial: 'OTHER' });
      world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
      ask(world, neighbour, read());
      return { delayMs: 50 };
    });
    const asked = [ask(world, client, read()), ask(world, client, write(9))];
    await world.when(() => asked.every(({ reply }) => reply !== null), 200_000);
    const found = decoy as TargetDisk | null;
    expect(found?.read(0, 1)[0]).toBe(0);
    await endWell(world);
  },
);

test('a disk without a name that may have been exchanged, by a report to a neighbour, gets no write', async () => {
  const world = await newWorld({ luns: 2, disk: NAMELESS });
  const [neighbour, client] = [world.newClient(0), world.newClient(1)];
  const decoy = exchange(world, NAMELESS);
  world.node.raiseAttention(TARGET_NAME, 0, LUNS_CHANGED);
  ask(world, neighbour, read());
  await world.when(() => world.unitOf(1)?.queue.mode !== 'open', 3000);
  expect((await answerTo(world, client, write(9))).error).toBe(EIO);
  expect(decoy.read(0, 1)[0]).toBe(0);
  await endWell(world);
});

test('a disk without a name stays after one transfer that does not fit, and the write is done', async () => {
  const world = await newWorld({ disk: NAMELESS });
  let writes = 0;
  world.commands.add(({ opcode }) => {
    if (opcode !== WRITE_10) return undefined;
    writes += 1;
    return writes === 1 ? { undone: 'residual' } : undefined;
  });
  expect((await answerTo(world, world.newClient(), write(5))).error).toBe(0);
  expect(world.disk.read(0, 1)[0]).toBe(5);
  await endWell(world);
});

test('a write does not reach an exchanged disk though REPORT LUNS of a script got the attention', async () => {
  const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB } });
  const client = world.newClient(1);
  const decoy = exchange(world, { serial: 'OTHER' });
  // SPC-4 §6.33: REPORT LUNS ends the attention of all LUNs. INQUIRY does not meet it.
  let isPending = true;
  world.commands.add(({ opcode, lun }) => {
    if (opcode === REPORT_LUNS) isPending = false;
    if (lun !== 1 || !isPending || opcode === INQUIRY || opcode === REPORT_LUNS) return undefined;
    isPending = false;
    return { sense: { key: 6, ...LUNS_CHANGED } };
  });
  await world.until(queryReportLuns(world.stack as never), 10_000);
  expect((await answerTo(world, client, write(9))).error).toBe(EIO);
  expect(decoy.read(0, 1)[0]).toBe(0);
  await endWell(world);
});

test('a disk that comes back while the exporter is busy is exported despite a session loss meanwhile', async () => {
  const session = { removalLatencySeconds: 10 };
  const world = await newWorld({ luns: 2, disk: { sizeBytes: MIB }, session });
  const disk = world.disks[1] ?? null;
  world.node.setLun(TARGET_NAME, 1, null);
  ask(world, world.newClient(0), read());
  await world.when(() => !world.exporter.has(1), 100_000);
  let free = () => {};
  const busy = new Promise<void>((resolve) => {
    free = resolve;
  });
  world.exporter.resized = () => busy;
  world.disk.resize(2 * MIB);
  await world.pass(40_000);
  world.node.setLun(TARGET_NAME, 1, disk);
  await world.pass(20_000);
  for (const link of [...world.network.links]) link.cut();
  await world.pass(30_000);
  free();
  const isBack = () => world.exporter.has(1) && world.unitOf(1)?.queue.mode === 'open';
  expect(await world.when(isBack, 30_000)).toBe(true);
  expect((await answerTo(world, world.newClient(1), write(3))).error).toBe(0);
  await endWell(world);
});
