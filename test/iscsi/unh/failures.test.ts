/**
 * UNH-IOL's full feature phase tests for initiators (version 0.1): failures that a target reports. A
 * disk is on the session, because the disk decides what is sent again.
 */
import { describe, expect, it } from 'vitest';
import { Budget } from '../../../src/bridge/budget.js';
import { LogicalUnit } from '../../../src/bridge/logical-unit.js';
import { BlockClient, diskFacts } from '../../helpers/block-client.js';
import { FROM, OP } from '../../helpers/peer-pdu.js';
import { ScriptedPeer } from '../../helpers/scripted-peer.js';
import { VirtualClock } from '../../helpers/virtual-clock.js';

const WRITE = { operation: 'write', data: Buffer.alloc(512, 7) } as const;
const [CHECK_CONDITION, BUSY, RESERVATION_CONFLICT] = [0x02, 0x08, 0x18];

/** A write that a client has asked for, and its first command. */
function written() {
  const peer = ScriptedPeer.loggedIn({ timers: { noopIntervalMs: 0 } });
  const { pool } = peer;
  const clock = new VirtualClock();
  const nothing = (): void => undefined;
  const unit = new LogicalUnit({
    ...{ lun: 1, facts: diskFacts(), forcedReadOnly: false, pool, clock },
    budget: new Budget({ requestsMax: 64, bytesMax: 1 << 20, memory: pool }),
    ...{ onAttention: nothing, onCongested: nothing, onIoError: nothing, onLossChanged: nothing },
    port: {
      submit: (command) => {
        peer.session.submit(command, peer.nowMs);
        peer.settle();
      },
      recall: nothing,
    },
  });
  const client = new BlockClient(unit.queue, pool);
  const answer = client.ask(WRITE);
  const first = peer.sentOne(FROM.scsiCommand);
  return { peer, clock, client, answer, first };
}

describe('UNH-IOL full feature phase: failures', () => {
  it.each([
    ['#16.4.1 (Target Failure: CRC error)', '4705'],
    ['#16.4.3 (Target Failure: unexpected unsolicited data)', '0c0c'],
    ['#16.4.4 (Target Failure: incorrect amount of data)', '0c0d'],
  ])('%s: the write is sent again as a new command', (_title, code) => {
    const { peer, answer, first, clock } = written();
    const sense = `001870000b0000000010${'00'.repeat(4)}${code}${'00'.repeat(10)}`;
    peer.respond(first, { byte3: CHECK_CONDITION, data: Buffer.from(sense, 'hex') });
    clock.pass(1000);
    expect(answer.answers).toBe(0);
    const again = peer.sentOne(FROM.scsiCommand);
    expect(again.header.subarray(32)).toEqual(first.header.subarray(32));
    expect(again.data).toEqual(first.data);
    expect([again.cmdSN, again.itt === first.itt]).toEqual([first.cmdSN + 1, false]);
    peer.respond(again);
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('#16.4.5 (Target Failure: BUSY): the write is sent again later as a new command', () => {
    const { peer, answer, first, clock } = written();
    peer.respond(first, { byte3: BUSY });
    expect([peer.sent(), answer.answers]).toEqual([[], 0]);
    clock.pass(1000);
    const again = peer.sentOne(FROM.scsiCommand);
    expect([again.cmdSN, again.data]).toEqual([first.cmdSN + 1, first.data]);
    peer.respond(again);
    expect([answer.answers, answer.errno]).toEqual([1, null]);
  });

  it('#16.4.6 (Target Failure: RESERVATION CONFLICT): the client hears it, and its next try is a new command', () => {
    const { peer, answer, client, first } = written();
    peer.respond(first, { byte3: RESERVATION_CONFLICT });
    expect([answer.answers, answer.errno]).toEqual([1, 'EPERM']);
    const next = client.ask(WRITE);
    const again = peer.sentOne(FROM.scsiCommand);
    expect([again.cmdSN, again.data]).toEqual([first.cmdSN + 1, first.data]);
    peer.send({ opcode: OP.scsiResponse, itt: again.itt, ttt: 0 });
    expect([next.answers, next.errno]).toEqual([1, null]);
  });
});
