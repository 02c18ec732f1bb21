import { describe, expect, it } from 'vitest';
import { Budget } from '../../src/bridge/budget.js';
import { LogicalUnit } from '../../src/bridge/logical-unit.js';
import { ANY, SENSE_TABLE } from '../../src/scsi/sense-table.js';
import { TargetDisk } from '../../src/target/disk.js';
import type { CommandFault } from '../../src/target/faults.js';
import { TargetNode } from '../../src/target/target.js';
import { type Answer, BlockClient, diskFacts, newPool } from '../helpers/block-client.js';
import { PureLink } from '../helpers/pure-link.js';
import { VirtualClock } from '../helpers/virtual-clock.js';

const READ10 = 0x28;
const WRITE10 = 0x2a;
const SYNCHRONIZE_CACHE10 = 0x35;
const BYTES = Buffer.alloc(4096, 0x5a);

/** The embedded target, a session to it and a client, with `fault` for every command of a kind. */
function world(opcode: number, fault: (count: number) => CommandFault) {
  const pool = newPool();
  const clock = new VirtualClock();
  const disk = TargetDisk.ram({ sizeBytes: 1 << 20, writeCache: 'volatile' });
  disk.write(0, BYTES);
  let count = 0;
  const node = new TargetNode({
    targets: [{ name: PureLink.targetName, luns: { 0: disk } }],
    clock,
    powerOnAttention: 'never',
    faults: {
      onCommand: (context) => {
        if (context.opcode !== opcode) return undefined;
        count += 1;
        return fault(count);
      },
    },
  });
  const link = new PureLink({ pool, node, clock });
  link.open();
  const attentions: string[] = [];
  const unit = new LogicalUnit({
    lun: 0,
    facts: diskFacts({ blockCount: (1 << 20) / 512 }),
    forcedReadOnly: false,
    port: link,
    pool,
    clock,
    budget: new Budget({ requestsMax: 8, bytesMax: 1 << 20 }),
    onAttention: (_unit, attention) => attentions.push(attention),
    onCongested: () => undefined,
  });
  const client = new BlockClient(unit.queue, pool);
  return { pool, clock, disk, unit, client, attentions, commands: () => count };
}

/** Lets pauses end until the request has its answer. */
function settle(clock: VirtualClock, answer: Answer): Answer {
  for (let passes = 0; answer.answers === 0 && passes < 200; passes += 1) clock.pass(1000);
  expect(answer.answers).toBe(1);
  return answer;
}

type Expected = { readonly once: string; readonly always: string };

/**
 * What a client of a read sees of a sense key and code (SPC-4 §4.5.6 and its annex of additional
 * sense codes): when the disk says it once, and when it says nothing else. `ok` is the right data.
 * Rows not named here are those of their key.
 */
const BY_CODE: Readonly<Record<string, Expected>> = {
  // NO SENSE without a reason, and what the disk could do again.
  '0': { once: 'ok', always: 'EIO' },
  '2/76': { once: 'EIO', always: 'EIO' },
  // NOT READY: the request waits for the disk, here until the queue before it gives up.
  '2': { once: 'ok', always: 'EIO' },
  // A damaged medium without a code of its own may read the next time.
  '3/3': { once: 'EIO', always: 'EIO' },
  '3/12': { once: 'EIO', always: 'EIO' },
  '3/16': { once: 'EIO', always: 'EIO' },
  '3/17': { once: 'EIO', always: 'EIO' },
  '3/19': { once: 'EIO', always: 'EIO' },
  '3/20': { once: 'EIO', always: 'EIO' },
  '3/49': { once: 'EIO', always: 'EIO' },
  '3/50': { once: 'EIO', always: 'EIO' },
  '3': { once: 'ok', always: 'EIO' },
  '4/8': { once: 'ok', always: 'EIO' },
  '4/62/2': { once: 'ok', always: 'EIO' },
  '4/71': { once: 'ok', always: 'EIO' },
  '4/75': { once: 'ok', always: 'EIO' },
  '4': { once: 'EIO', always: 'EIO' },
  '5/32/2': { once: 'EPERM', always: 'EPERM' },
  '5/32': { once: 'ENOTSUP', always: 'ENOTSUP' },
  '5/34': { once: 'ENOTSUP', always: 'ENOTSUP' },
  '5/37': { once: 'ok', always: 'EIO' },
  '5/39': { once: 'EPERM', always: 'EPERM' },
  '5/44': { once: 'EIO', always: 'EIO' },
  // About SET TARGET PORT GROUPS: no request of a client is at fault.
  '5/103/10': { once: 'EIO', always: 'EIO' },
  '5/85': { once: 'ok', always: 'EIO' },
  '5': { once: 'EINVAL', always: 'EINVAL' },
  '6': { once: 'ok', always: 'EIO' },
  '7/39/7': { once: 'ENOSPC', always: 'ENOSPC' },
  '7': { once: 'EPERM', always: 'EPERM' },
  '8': { once: 'EIO', always: 'EIO' },
  '9': { once: 'EIO', always: 'EIO' },
  '10': { once: 'EIO', always: 'EIO' },
  '11/16': { once: 'EIO', always: 'EIO' },
  '11': { once: 'ok', always: 'EIO' },
  '12': { once: 'EIO', always: 'EIO' },
  '13': { once: 'ENOSPC', always: 'ENOSPC' },
  '14': { once: 'EIO', always: 'EIO' },
  // RECOVERED ERROR and COMPLETED mean done; here they come without data, so it is read again.
  '1': { once: 'ok', always: 'EIO' },
  '15': { once: 'ok', always: 'EIO' },
};

function expectedOf(key: number, asc: number, ascq: number): Expected {
  const found = BY_CODE[`${key}/${asc}/${ascq}`] ?? BY_CODE[`${key}/${asc}`] ?? BY_CODE[`${key}`];
  if (found === undefined) throw new Error(`no expectation for key ${key}`);
  return found;
}

/** A row stands for every code or qualifier it does not name; this is one of them. */
const concrete = (code: number): number => (code === ANY ? 0x7f : code);
const hex = (code: number): string => (code === ANY ? '*' : code.toString(16).padStart(2, '0'));

const rows = SENSE_TABLE.flatMap(([key, asc, ascq, verdict]) =>
  (['fixed', 'descriptor'] as const).map((format) => ({
    name: `${hex(key)}/${hex(asc)}/${hex(ascq)} (${verdict.words}), ${format} format`,
    sense: { key, asc: concrete(asc), ascq: concrete(ascq), format },
    expected: expectedOf(key, concrete(asc), concrete(ascq)),
    // Success without the data of the read shows that something else is wrong.
    attention: verdict.action === 'success' ? 'factsStale' : verdict.attention,
  })),
);

const seen = ({ errno, data }: Answer): string => {
  if (errno !== null) return errno;
  return data.equals(BYTES) ? 'ok' : 'wrong data';
};

describe('a read whose response is injected', () => {
  it.each(rows)('a read gets $name: once $expected.once, always $expected.always', (row) => {
    const { sense, expected, attention } = row;
    const once = world(READ10, (count) => (count === 1 ? { sense } : undefined));
    const first = once.client.ask({ operation: 'read', length: 4096 });
    expect(seen(settle(once.clock, first))).toBe(expected.once);
    expect(once.attentions).toEqual(attention === null ? [] : [attention]);
    const always = world(READ10, () => ({ sense }));
    const last = always.client.ask({ operation: 'read', length: 4096 });
    expect(seen(settle(always.clock, last))).toBe(expected.always);
    expect(always.commands()).toBeLessThan(60);
    expect(always.pool.inUse).toBeLessThanOrEqual(1);
  });
});

describe('a write whose response is injected', () => {
  it.each([
    ['RECOVERED ERROR: it is written', { sense: { key: 1, asc: 0x17, ascq: 1 } }, null],
    ['SPACE ALLOCATION FAILED: no space', { sense: { key: 7, asc: 0x27, ascq: 7 } }, 'ENOSPC'],
    ['WRITE PROTECTED: not permitted', { sense: { key: 7, asc: 0x27, ascq: 0 } }, 'EPERM'],
    ['RESERVATION CONFLICT: not permitted', { status: 0x18 }, 'EPERM'],
    ['an unknown status: an error', { status: 0x22 }, 'EIO'],
    ['BUSY, for ever: an error after a minute', { status: 0x08 }, 'EIO'],
    ['TASK SET FULL, for ever: an error after a minute', { status: 0x28 }, 'EIO'],
    ['ACA ACTIVE, for ever: an error after a minute', { status: 0x30 }, 'EIO'],
    ['TASK ABORTED, for ever: an error', { status: 0x40 }, 'EIO'],
    ['response 1 (target failure), for ever: an error', { response: 1 }, 'EIO'],
  ] as const)('a write gets %s', (_name, fault, errno) => {
    const { client, clock } = world(WRITE10, () => fault);
    const answer = client.ask({ operation: 'write', offset: 8192, data: BYTES });
    expect(settle(clock, answer).errno).toBe(errno);
  });

  it.each([
    ['BUSY', { status: 0x08 }],
    ['TASK SET FULL', { status: 0x28 }],
    ['ACA ACTIVE', { status: 0x30 }],
    ['TASK ABORTED', { status: 0x40 }],
    ['a response code that is not 0', { response: 1 }],
    ['a deferred error', { sense: { key: 3, asc: 0x0c, ascq: 0, deferred: true } }],
  ] as const)(
    'a write succeeds and its bytes are there after a few responses of %s',
    (_name, fault) => {
      const { client, clock, disk } = world(WRITE10, (count) => (count < 4 ? fault : undefined));
      const answer = client.ask({ operation: 'write', offset: 8192, data: BYTES });
      expect(settle(clock, answer).errno).toBeNull();
      expect(disk.read(8192, 4096).equals(BYTES)).toBe(true);
    },
  );
});

describe('a flush whose response is injected', () => {
  it('a deferred error about an acknowledged write fails the next flush, and one only', () => {
    const sense = { key: 3, asc: 0x0c, ascq: 0, deferred: true };
    const { client, clock } = world(READ10, (count) => (count === 1 ? { sense } : undefined));
    settle(clock, client.ask({ operation: 'write', offset: 8192, data: BYTES }));
    const read = client.ask({ operation: 'read', length: 4096 });
    expect(seen(settle(clock, read))).toBe('ok');
    const flushes = [client.ask({ operation: 'flush' }), client.ask({ operation: 'flush' })];
    expect(flushes.map((flush) => settle(clock, flush).errno)).toEqual(['EIO', null]);
  });

  it('a medium error on SYNCHRONIZE CACHE is reported', () => {
    const sense = { key: 3, asc: 0x0c, ascq: 2 };
    const { client, clock } = world(SYNCHRONIZE_CACHE10, () => ({ sense }));
    expect(settle(clock, client.ask({ operation: 'flush' })).errno).toBe('EIO');
  });
});
