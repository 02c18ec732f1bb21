import { describe, expect, it } from 'vitest';
import { LOSSES_MAX, OutageQueue } from '../../src/bridge/outage-queue.js';
import { BlockClient, diskFacts } from '../helpers/block-client.js';
import { diskBench } from '../helpers/scripted-port.js';

const write = (block: number) =>
  ({ operation: 'write', offset: block * 512, data: Buffer.alloc(512, block) }) as const;
const blocks = (sent: { cdb: Buffer }[]): number[] => sent.map(({ cdb }) => cdb.readUInt32BE(2));

describe('OutageQueue during an outage', () => {
  it('requests are held and go out in the order of arrival, lost ones in their place', () => {
    const { client, port, unit } = diskBench(diskFacts());
    const answers = [client.ask(write(1)), client.ask(write(2))];
    unit.queue.hold();
    answers.push(client.ask(write(3)));
    const [first, second] = [port.take(), port.take()];
    port.lost(second);
    port.lost(first);
    answers.push(client.ask(write(4)));
    expect([unit.queue.heldRequests, unit.queue.heldBytes, port.sent.length]).toEqual([4, 2048, 0]);
    unit.queue.release();
    expect(blocks(port.sent)).toEqual([1, 2, 3, 4]);
    while (port.sent.length > 0) port.good(port.take());
    expect(answers.map(({ answers: count, errno }) => [count, errno])).toEqual(
      Array(4).fill([1, null]),
    );
    expect([unit.queue.heldRequests, unit.queue.heldBytes]).toEqual([0, 0]);
  });

  it('held and later requests fail with EIO when the disk is removed', () => {
    const { client, port, unit } = diskBench(diskFacts());
    client.ask(write(0));
    unit.queue.hold();
    const held = client.ask(write(1));
    unit.queue.fail('gone');
    expect([held.answers, held.errno, held.reason]).toEqual([1, 'EIO', 'gone']);
    expect(client.ask(write(2)).errno).toBe('EIO');
    port.lost(port.take());
    expect(client.finished.map(({ errno }) => errno)).toEqual(['EIO', 'EIO', 'EIO']);
    unit.queue.release();
    expect(client.ask(write(3)).answers).toBe(0);
  });

  it('a trim covers many bytes and holds none', () => {
    const { client, unit } = diskBench(diskFacts());
    unit.queue.hold();
    client.ask({ operation: 'trim', length: 1 << 29 });
    expect([unit.queue.heldRequests, unit.queue.heldBytes]).toEqual([1, 0]);
  });

  it('requests of a client that disconnected end: none overtakes a later write', () => {
    const { client, port, unit, pool } = diskBench(diskFacts());
    const other = new BlockClient(unit.queue, pool);
    unit.queue.hold();
    const ghost = client.ask(write(1));
    const alive = other.ask(write(2));
    client.leave();
    expect([ghost.answers, alive.answers, unit.queue.heldBytes]).toEqual([1, 0, 512]);
    unit.queue.release();
    expect(blocks(port.sent)).toEqual([2]);
  });
});

describe('a request that is lost while the session lives', () => {
  it('a lost request is retried immediately, then with pauses, and fails in the end', () => {
    const { client, port, clock } = diskBench(diskFacts());
    const startMs = clock.nowMs();
    const answer = client.ask(write(1));
    let tries = 0;
    while (answer.answers === 0) {
      tries += 1;
      port.lost(port.take(), 'aborted');
      if (tries === 1) expect(port.sent.length).toBe(1);
      else expect(port.sent.length).toBe(0);
      if (tries > 1 && answer.answers === 0) clock.pass(clock.nextAtMs - clock.nowMs());
    }
    expect([tries, answer.errno, clock.timers]).toEqual([LOSSES_MAX + 1, 'EIO', 0]);
    expect(clock.nowMs() - startMs).toBeGreaterThan(20_000);
  });

  it('a request whose every command fails inside submit is retried with pauses, not in a loop', () => {
    const { client, port, clock, unit } = diskBench(diskFacts());
    port.onSubmit = (sent) => port.lost(sent);
    const answer = client.ask(write(1));
    expect([port.sent.length, answer.answers]).toEqual([2, 0]);
    unit.queue.hold();
    clock.pass(10_000);
    expect(port.sent.length).toBe(2);
    port.onSubmit = (sent) => port.good(sent);
    unit.queue.release();
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });
});

it('OutageQueue reports the size, block size and write protection of its disk', () => {
  const { unit, clock } = diskBench(diskFacts({ blockSizeBytes: 4096, blockCount: 10 }));
  const queue = new OutageQueue(unit.disk, clock);
  expect([queue.sizeBytes, queue.blockSizeBytes, queue.readOnly]).toEqual([40960, 4096, false]);
});
