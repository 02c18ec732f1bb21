import { describe, expect, it } from 'vitest';
import { FROM, NO_TAG, OP } from '../helpers/peer-pdu.js';
import { type Config, ScriptedPeer } from '../helpers/scripted-peer.js';

const F = 0x80;
const [ABORT_TASK, LU_RESET, WARM_RESET] = [1, 5, 6];
const TIMERS = {
  noopIntervalMs: 0,
  taskTimeoutMs: 10_000,
  abortTimeoutMs: 5000,
  logicalUnitResetTimeoutMs: 7000,
};

/** A command of LUN 1 and one of LUN 2 that both take too long. */
function late(config: Config = {}) {
  const peer = ScriptedPeer.loggedIn({ timers: TIMERS, ...config });
  const command = peer.submit('none', 0, { lun: [0x00010000, 0] });
  const other = peer.submit('none', 0, { lun: [0x00020000, 0] });
  const [request, otherRequest] = peer.sent();
  peer.at(11_000);
  return { peer, command, other, request: request!, otherRequest: otherRequest! };
}

const answer = (itt: number, response: number) => ({
  opcode: OP.taskManagement,
  itt,
  ttt: 0,
  byte2: response,
});

describe('RFC 7143 §11.5 (Task Management Function Request)', () => {
  it('a task that takes too long is aborted: its tag, LUN and CmdSN, immediate', () => {
    const { peer, request } = late();
    const abort = peer.sentOne(FROM.taskManagement);
    expect(abort).toMatchObject({
      immediate: true,
      flags: F | ABORT_TASK,
      lun: [0x00010000, 0],
      word20: request.itt,
      cmdSN: request.cmdSN + 2,
      word32: request.cmdSN,
    });
    expect([request.itt, NO_TAG]).not.toContain(abort.itt);
  });

  it('without an answer: LOGICAL UNIT RESET, TARGET WARM RESET, and a new connection', () => {
    const { peer, command } = late();
    peer.sentOne(FROM.taskManagement);
    peer.at(16_000);
    const reset = peer.sentOne(FROM.taskManagement);
    expect(reset).toMatchObject({
      flags: F | LU_RESET,
      lun: [0x00010000, 0],
      word20: NO_TAG,
      word32: 0,
    });
    peer.at(23_000);
    expect(peer.sentOne(FROM.taskManagement)).toMatchObject({
      flags: F | WARM_RESET,
      word20: NO_TAG,
    });
    expect(command.outcome).toBe('pending');
    peer.at(30_000);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
    expect(command.outcome).toBe('lost');
  });

  it('after a logout request nothing is aborted any more (§11.14 (Logout Request))', () => {
    const timers = { ...TIMERS, taskTimeoutMs: 1000, logoutTimeoutMs: 9000 };
    const peer = ScriptedPeer.loggedIn({ timers });
    peer.submit('none');
    peer.sent();
    peer.send({ opcode: OP.async, word36: 1 << 24, word40: 9, ttt: 0 });
    peer.sentOne(FROM.logout);
    peer.at(4000);
    peer.at(6000);
    expect([peer.sent(), peer.session.state]).toEqual([[], 'loggedIn']);
  });

  it('a task that is answered while its abort is not, is no reason to reset anything', () => {
    const { peer, command, request, otherRequest } = late();
    peer.sentOne(FROM.taskManagement);
    peer.respond(request);
    peer.respond(otherRequest);
    expect(command.outcome).toBe('answered');
    peer.at(16_000);
    peer.at(17_000);
    expect([peer.sent(), peer.session.state]).toEqual([[], 'loggedIn']);
  });
});

describe('RFC 7143 §11.6.1 (Response)', () => {
  it.each([
    [0, 'Function complete'],
    [1, 'Task does not exist'],
  ])('%i (%s) ends the task that was to be aborted, and only that', (response) => {
    const { peer, command, other } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'pending']);
    expect(peer.session.state).toBe('loggedIn');
  });

  it.each([
    [2, 'LUN does not exist'],
    [3, 'Task still allegiant'],
    [4, 'Task allegiance reassignment not supported'],
    [5, 'Task management function not supported'],
    [6, 'Function authorization failed'],
    [255, 'Function rejected'],
    [99, 'unassigned'],
  ])('%i (%s) to an abort leads to the reset of the logical unit at once', (response) => {
    const { peer, command } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
    expect(peer.sentOne(FROM.taskManagement).flags).toBe(F | LU_RESET);
    expect(command.outcome).toBe('pending');
  });

  it('0 to a reset ends all tasks of the logical unit, and no other', () => {
    const { peer, command, other } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 255));
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'pending']);
  });

  it('0 to a target reset ends all tasks', () => {
    const { peer, command, other } = late();
    for (const response of [255, 255, 0]) {
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
    }
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'aborted']);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a target that refuses every function gets a new connection', () => {
    const { peer, command } = late();
    for (let step = 0; step < 3; step += 1) {
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 5));
    }
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
  });

  it('§11.17.1 (Reason): a request that is rejected counts as one that is refused', () => {
    const { peer } = late();
    const abort = peer.sentOne(FROM.taskManagement);
    peer.send({ opcode: OP.reject, byte2: 6, ttt: 0, data: abort.header });
    expect(peer.sentOne(FROM.taskManagement).flags).toBe(F | LU_RESET);
  });

  it('a response to a request nobody made is dropped', () => {
    const { peer, command } = late();
    peer.sent();
    peer.send(answer(0x12345, 0));
    expect([command.outcome, peer.session.state]).toEqual(['pending', 'loggedIn']);
  });
});

describe('RFC 7143 §7.11 (SCSI Timeouts)', () => {
  it('a response that comes after the end of its task is dropped', () => {
    const { peer, command, request } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    expect(command.outcome).toBe('aborted');
    const next = peer.submit('read', 512);
    peer.sentOne(FROM.scsiCommand);
    peer.respond(request, { byte3: 2, data: Buffer.from('00027006', 'hex') });
    expect([next.outcome, peer.session.state]).toEqual(['pending', 'loggedIn']);
    expect(peer.done).toHaveLength(1);
  });

  it('the rest of a Data-In whose task was aborted in its middle reaches no other task', () => {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS });
    const command = peer.submit('read', 512);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    peer.at(11_000);
    const aborted = peer.encode(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    const data = { opcode: OP.dataIn, itt, flags: 0, data: Buffer.alloc(512, 0xbb) };
    const bytes = Buffer.concat([aborted, peer.encode(data)]);
    peer.feed(bytes.subarray(0, 48 + 48 + 100));
    expect(command.outcome).toBe('aborted');
    const next = peer.submit('read', 512);
    peer.feed(bytes.subarray(48 + 48 + 100));
    expect([next.dataIn.byteLength, peer.session.state]).toEqual([0, 'loggedIn']);
  });

  it('one task after the other: the next late one is aborted after the first', () => {
    const { peer, other, otherRequest } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    peer.at(12_000);
    const abort = peer.sentOne(FROM.taskManagement);
    expect([abort.flags, abort.word20]).toEqual([F | ABORT_TASK, otherRequest.itt]);
    peer.send(answer(abort.itt, 0));
    expect(other.outcome).toBe('aborted');
  });
});
