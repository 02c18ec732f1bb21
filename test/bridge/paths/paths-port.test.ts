import { describe, expect, it } from 'vitest';
import { Fragments } from '../../../src/base/fragments.js';
import { Path } from '../../../src/bridge/paths/path.js';
import { PathChoice, type PathPolicy } from '../../../src/bridge/paths/path-choice.js';
import { PathsPort } from '../../../src/bridge/paths/paths-port.js';
import { ScsiCommand, type ScsiOutcome } from '../../../src/scsi/command.js';
import type { Attention } from '../../../src/scsi/sense-table.js';
import { newPool } from '../../helpers/block-client.js';
import { fixedSense, ScriptedPort } from '../../helpers/scripted-port.js';

const pool = newPool();
const STANDBY = fixedSense(0x02, 0x04, 0x0b);
const GROUPS_CHANGED = fixedSense(0x06, 0x2a, 0x06);

function comes(path: Path): void {
  path.happened('sessionBack');
  path.happened('sameDiskFound');
}

type Told = { readonly outcome: ScsiOutcome; readonly status: number };

/** Paths A, B, … to one unit, all of them up. */
function bench(names = 'AB', policy: PathPolicy = 'failover') {
  const fenced: string[] = [];
  const switches: string[] = [];
  const attentions: [string, Attention][] = [];
  const held = { is: false };
  const awaited = { is: false };
  const turn = { now: -1 };
  const ports = [...names].map(() => new ScriptedPort());
  const port: PathsPort = new PathsPort(new PathChoice(policy), {
    turn: () => turn.now,
    pathAttention: (path, attention) => {
      attentions.push([path.name, attention]);
      if (attention === 'portStandby') path.accessIs('standby');
      return 'news';
    },
    isHeld: () => held.is,
    isAwaited: () => awaited.is,
    fenceNeeded: ({ path }) => fenced.push(path?.name ?? ''),
    switched: (from, to) => switches.push(`${from?.name ?? ''}→${to.name}`),
  });
  const paths = [...names].map((name, at) => {
    const path = new Path({ port: ports[at]!, lun: { upper: at, lower: 0 }, name });
    comes(path);
    port.add(path);
    return path;
  });
  const send = (direction: 'read' | 'write' | 'none', block = 0) => {
    const told: Told[] = [];
    const command = new ScsiCommand(
      { scsiCommandDone: ({ outcome, status }) => told.push({ outcome, status }) },
      new Fragments(pool),
    );
    command.prepare(direction, 512);
    command.cdb.writeUInt32BE(block, 2);
    if (direction === 'write') command.dataOut = new Fragments(pool);
    port.submit(command);
    return told;
  };
  /** The session of the path is gone: what was under way comes back after that. */
  const goes = (at: number) => {
    paths[at]!.happened('sessionLost');
    port.pathDown(paths[at]!);
    const lost = ports[at]!.sent.splice(0);
    for (const sent of lost) ports[at]!.lost(sent);
  };
  /** What was under way when the path went has ended. */
  const over = (at: number) => {
    for (const fence of port.fences) if (fence.path === paths[at]) port.provenOver(fence);
  };
  const blocksOn = (at: number) => ports[at]!.sent.map(({ cdb }) => cdb.readUInt32BE(2));
  return {
    turn,
    held,
    awaited,
    port,
    ports,
    paths,
    send,
    goes,
    over,
    blocksOn,
    fenced,
    switches,
    attentions,
  };
}

describe('several paths to one logical unit', () => {
  it('a read that was under way on a path that is gone is done over another one at once', () => {
    const { ports, send, goes, blocksOn, fenced, switches } = bench();
    const told = send('read', 7);
    goes(0);
    expect([blocksOn(1), told, fenced, switches]).toEqual([[7], [], [], ['→A', 'A→B']]);
    ports[1]!.good(ports[1]!.take());
    expect(told).toEqual([{ outcome: 'answered', status: 0 }]);
  });

  it('writes wait until the old tasks are over, and then go in the order in which they came', () => {
    const { port, ports, send, goes, blocksOn, fenced, over } = bench();
    const first = send('write', 1);
    send('write', 2);
    goes(0);
    const later = send('write', 3);
    const read = send('read', 4);
    expect([blocksOn(1), fenced, port.waitingCount]).toEqual([[4], ['A'], 3]);
    ports[1]!.good(ports[1]!.take());
    over(0);
    expect([blocksOn(1), port.isFenced]).toEqual([[1, 2, 3], false]);
    while (ports[1]!.sent.length > 0) ports[1]!.good(ports[1]!.take());
    expect([first, later, read].map(({ length }) => length)).toEqual([1, 1, 1]);
  });

  it('a path that is gone without a write under way keeps no write waiting', () => {
    const { send, goes, blocksOn, fenced } = bench();
    send('read', 1);
    goes(0);
    send('write', 2);
    expect([blocksOn(1), fenced]).toEqual([[1, 2], []]);
  });

  it('writes wait for every path that is gone with writes under way', () => {
    const { send, goes, blocksOn, over } = bench('ABC', 'least-queue');
    for (let block = 0; block < 2; block += 1) send('write', block);
    goes(0);
    goes(1);
    over(0);
    expect(blocksOn(2)).toEqual([]);
    over(1);
    expect(blocksOn(2)).toEqual([0, 1]);
  });

  it('the fence holds for a path that comes back before the old tasks are over', () => {
    const { port, paths, send, goes, blocksOn, over } = bench('AB');
    const told = send('write', 1);
    paths[1]!.happened('sessionLost');
    goes(0);
    // Without any path the write is held by the caller that sent it.
    expect(told).toEqual([{ outcome: 'lost', status: 0 }]);
    comes(paths[1]!);
    send('write', 1);
    expect([blocksOn(1), port.waitingCount]).toEqual([[], 1]);
    over(0);
    expect(blocksOn(1)).toEqual([1]);
  });

  it('a command behind the fence comes back as lost if it is recalled', () => {
    const { port, send, goes, blocksOn, over } = bench();
    const told = send('write', 1);
    goes(0);
    port.recall({ upper: 0, lower: 0 });
    expect(told).toEqual([{ outcome: 'lost', status: 0 }]);
    over(0);
    expect(blocksOn(1)).toEqual([]);
  });

  it('a command that is lost while requests are held goes back to its sender', () => {
    const { held, send, goes, blocksOn } = bench();
    const told = send('read', 1);
    held.is = true;
    goes(0);
    expect([told.length, blocksOn(1)]).toEqual([1, []]);
  });

  it('a command that a port on standby refuses is done over another path, writes too', () => {
    const { ports, send, blocksOn, attentions, fenced } = bench();
    const told = send('write', 5);
    ports[0]!.check(ports[0]!.take(), STANDBY);
    expect([blocksOn(1), told, fenced]).toEqual([[5], [], []]);
    expect(attentions).toEqual([['A', 'portStandby']]);
    send('write', 6);
    expect(blocksOn(1)).toEqual([5, 6]);
  });

  it('the sender gets a notice if all ports are on standby', () => {
    const { ports, send } = bench();
    const told = send('read', 5);
    for (const port of ports) port.check(port.take(), STANDBY);
    expect(told).toEqual([{ outcome: 'answered', status: 2 }]);
  });

  it('a change of the access states is reported to the owner of the paths and to the sender', () => {
    const { ports, send, attentions } = bench();
    const told = send('read', 5);
    ports[0]!.check(ports[0]!.take(), GROUPS_CHANGED);
    expect(attentions).toEqual([['A', 'accessStateChanged']]);
    expect(told).toEqual([{ outcome: 'answered', status: 2 }]);
  });

  it('a task that was aborted on a path that lives is the business of its sender', () => {
    const { ports, send, blocksOn, fenced } = bench();
    const told = send('write', 5);
    ports[0]!.lost(ports[0]!.take(), 'aborted');
    expect([told.length, blocksOn(1), fenced]).toEqual([1, [], []]);
  });

  it('each path is queried by its own LUN', () => {
    const { ports, send } = bench('AB', 'round-robin');
    for (let block = 0; block < 2; block += 1) send('read', block);
    expect(ports.map(({ sent }) => sent[0]?.command.lun.upper)).toEqual([0, 1]);
  });

  it('a path that may lead to another disk is not used, and commands in its session come back', () => {
    const { port, ports, paths, send, blocksOn } = bench();
    const recalled: string[] = [];
    ports[0]!.recall = () => recalled.push('A');
    const told = send('read', 1);
    paths[0]!.happened('doubted');
    port.takenOut(paths[0]!);
    send('read', 2);
    expect(blocksOn(1)).toEqual([2]);
    expect(recalled).toEqual(['A']);
    ports[0]!.good(ports[0]!.take());
    expect(told.length).toBe(1);
  });

  it('each loss of a path with writes under way needs a proof of its own', () => {
    const { port, paths, send, goes, blocksOn } = bench('ABC', 'round-robin');
    for (let block = 0; block < 2; block += 1) send('write', block);
    goes(0);
    const [first] = port.fences;
    goes(1);
    port.provenOver(first!);
    port.provenOver(first!);
    expect([blocksOn(2), port.fences.map(({ path }) => path)]).toEqual([[], [paths[1]]]);
  });
});

describe('the choice of a path', () => {
  const spread = (policy: PathPolicy) => {
    const { ports, send } = bench('ABC', policy);
    for (let block = 0; block < 6; block += 1) send('read', block);
    return ports.map(({ sent }) => sent.length);
  };

  it('least-queue and round-robin use all paths, failover one', () => {
    expect(spread('least-queue')).toEqual([2, 2, 2]);
    expect(spread('round-robin')).toEqual([2, 2, 2]);
    expect(spread('failover')).toEqual([6, 0, 0]);
  });

  it('commands of one turn take one path with least-queue, but for a long queue', () => {
    const { turn, send, blocksOn } = bench('AB', 'least-queue');
    turn.now = 1;
    send('read', 1);
    send('read', 2);
    turn.now = 2;
    send('read', 3);
    expect([blocksOn(0), blocksOn(1)]).toEqual([[1, 2], [3]]);
    for (let block = 4; block < 104; block += 1) send('read', block);
    expect(blocksOn(0).length).toBeGreaterThan(30);
    expect(blocksOn(1).length).toBeGreaterThan(30);
  });

  it('least-queue prefers the path with the fewest commands under way', () => {
    const { ports, send, blocksOn } = bench('AB', 'least-queue');
    for (let block = 0; block < 4; block += 1) send('read', block);
    while (ports[1]!.sent.length > 0) ports[1]!.good(ports[1]!.take());
    for (let block = 4; block < 6; block += 1) send('read', block);
    expect(blocksOn(1)).toEqual([4, 5]);
  });

  it.each(['least-queue', 'round-robin', 'failover'] as const)(
    '%s uses only the best group, and goes back to it at once',
    (policy) => {
      const { paths, send, blocksOn, switches } = bench('AB', policy);
      paths[0]!.accessIs('nonOptimized');
      paths[1]!.accessIs('optimized');
      send('read', 1);
      send('read', 2);
      paths[1]!.accessIs('transitioning');
      send('read', 3);
      paths[1]!.accessIs('optimized');
      paths[1]!.happened('sameDiskFound');
      send('read', 4);
      expect([blocksOn(0), blocksOn(1)]).toEqual([[3], [1, 2, 4]]);
      expect(switches).toEqual(['→B', 'B→A', 'A→B']);
    },
  );

  it('a preferred group is better than one in the same state, and a path that fails often worse', () => {
    const { paths, send, blocksOn } = bench('AB', 'least-queue');
    paths[1]!.accessIs('unknown', true);
    send('read', 1);
    paths[1]!.isSuspect = true;
    send('read', 2);
    expect([blocksOn(0), blocksOn(1)]).toEqual([[2], [1]]);
  });
});
