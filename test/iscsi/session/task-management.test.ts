import { describe, expect, it } from 'vitest';
import { FROM, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { type Config, ScriptedPeer } from '../../helpers/scripted-peer.js';

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

  it('an abort without a response leads to LOGICAL UNIT RESET, TARGET WARM RESET, and a new connection', () => {
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

  it('no task is aborted after a logout request (§11.14 (Logout Request))', () => {
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

  it('a task that is answered while its abort is not, is no reason for a reset', () => {
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
  ])('the response %i (%s) ends the task of the abort, and only that', (response) => {
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
  ])(
    'the response %i (%s) to an abort leads to the reset of the logical unit at once',
    (response) => {
      const { peer, command } = late();
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
      expect(peer.sentOne(FROM.taskManagement).flags).toBe(F | LU_RESET);
      expect(command.outcome).toBe('pending');
    },
  );

  it('the response 0 to a reset ends all tasks of the logical unit, and no other', () => {
    const { peer, command, other } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 255));
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'pending']);
  });

  it('the response 2 (LUN does not exist) to a reset ends the tasks of that LUN, and resets no other', () => {
    const { peer, command, other } = late();
    for (const response of [2, 2]) {
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
    }
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'pending']);
    // The command of the other LUN is late too, and asked about in its turn.
    expect(peer.sentOne(FROM.taskManagement).flags).toBe(F | ABORT_TASK);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('the response 0 to a target reset ends all tasks', () => {
    const { peer, command, other } = late();
    for (const response of [255, 255, 0]) {
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, response));
    }
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'aborted']);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('a target that rejects every function gets a new connection', () => {
    const { peer, command } = late();
    for (let step = 0; step < 3; step += 1) {
      peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 5));
    }
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
  });

  it('§11.17.1 (Reason): a Reject of a request counts as a response that rejects it', () => {
    const { peer } = late();
    const abort = peer.sentOne(FROM.taskManagement);
    peer.send({ opcode: OP.reject, byte2: 6, ttt: 0, data: abort.header });
    expect(peer.sentOne(FROM.taskManagement).flags).toBe(F | LU_RESET);
  });

  it('a response without a request is dropped', () => {
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
    // The abort of the other late task.
    peer.sentOne(FROM.taskManagement);
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

  it('late tasks are aborted one after the other', () => {
    const { peer, other, otherRequest } = late();
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 0));
    const abort = peer.sentOne(FROM.taskManagement);
    expect([abort.flags, abort.word20]).toEqual([F | ABORT_TASK, otherRequest.itt]);
    peer.send(answer(abort.itt, 0));
    expect([other.outcome, peer.sent()]).toEqual(['aborted', []]);
  });
});

describe('commands while a reset is pending', () => {
  const LUN_1 = [0x00010000, 0] as const;
  const LUN_2 = [0x00020000, 0] as const;

  /** The abort of LUN 1's late task was refused, so the LUN is being reset. */
  function resetting() {
    const state = late({ timers: { ...TIMERS, taskTimeoutMs: 9000 } });
    state.peer.send(answer(state.peer.sentOne(FROM.taskManagement).itt, 5));
    const reset = state.peer.sentOne(FROM.taskManagement);
    expect(reset.flags).toBe(F | LU_RESET);
    return { ...state, reset };
  }

  it('no new command is sent to its LUN, while another LUN gets them', () => {
    const { peer, reset } = resetting();
    const held = peer.submit('read', 512, { lun: LUN_1 });
    const question = peer.submit('read', 96, { lun: LUN_1, isControl: true });
    expect(peer.sent()).toEqual([]);
    peer.submit('read', 512, { lun: LUN_2 });
    expect(peer.sentOne(FROM.scsiCommand).lun).toEqual(LUN_2);
    peer.send(answer(reset.itt, 0));
    expect([held.outcome, question.outcome]).toEqual(['pending', 'pending']);
    const requests = peer.sent().filter(({ opcode }) => opcode === FROM.scsiCommand);
    expect(requests.map(({ lun }) => lun)).toEqual([LUN_1, LUN_1]);
    for (const { cmdSN } of requests) expect(cmdSN).toBeGreaterThanOrEqual(reset.cmdSN);
  });

  it('no LUN gets a new command while the whole target is being reset', () => {
    const { peer, reset, command, other } = resetting();
    peer.submit('read', 512, { lun: LUN_2 });
    const asked = peer.sentOne(FROM.scsiCommand);
    peer.send(answer(reset.itt, 5));
    const warm = peer.sentOne(FROM.taskManagement);
    expect(warm.flags).toBe(F | WARM_RESET);
    const held = [LUN_1, LUN_2].map((lun) => peer.submit('read', 512, { lun }));
    peer.submit('read', 96, { lun: LUN_2, isControl: true });
    peer.respond(asked);
    expect(peer.sent()).toEqual([]);
    peer.send(answer(warm.itt, 0));
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'aborted']);
    expect(held.map(({ outcome }) => outcome)).toEqual(['pending', 'pending']);
    expect(peer.sent().map(({ opcode }) => opcode)).toEqual(Array(3).fill(FROM.scsiCommand));
  });

  it('a running write of its LUN still sends the requested data', () => {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS }, { keys: { ImmediateData: 'No' } });
    peer.submit('none', 0, { lun: LUN_1 });
    peer.nowMs = 5000;
    const write = peer.submit('write', 512, { lun: LUN_1, operation: 0x2a });
    const request = peer.sent()[1]!;
    peer.at(11_000);
    peer.send(answer(peer.sentOne(FROM.taskManagement).itt, 5));
    peer.sentOne(FROM.taskManagement);
    peer.send({ opcode: OP.r2t, lun: LUN_1, itt: request.itt, ttt: 7, word44: 512 });
    expect(peer.sentOne(FROM.dataOut).data).toHaveLength(512);
    expect(write.outcome).toBe('pending');
  });

  it('commands that wait for the reset alone are no sign of a closed window', () => {
    const { peer, reset, request, otherRequest } = resetting();
    const held = peer.submit('read', 512, { lun: LUN_1 });
    peer.respond(request);
    peer.respond(otherRequest);
    for (const nowMs of [12_000, 13_000, 17_500]) peer.at(nowMs);
    expect([peer.session.state, held.outcome]).toEqual(['loggedIn', 'pending']);
    peer.send(answer(reset.itt, 0));
    expect(peer.sentOne(FROM.scsiCommand).lun).toEqual(LUN_1);
  });

  it('held commands are lost with the link, in their order', () => {
    const { peer } = resetting();
    const held = [1, 2, 3].map(() => peer.submit('read', 512, { lun: LUN_1 }));
    peer.done.length = 0;
    peer.loseLink();
    expect(peer.done.slice(0, 3)).toEqual(held);
    for (const command of held) expect(command.outcome).toBe('lost');
  });
});

describe('a unit attention that reports cleared tasks', () => {
  const senseOf = (asc: number, ascq: number) =>
    Buffer.from([0, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0]);

  /** Four commands, of which the third is returned; the fourth is of another LUN. */
  function told(asc: number, ascq = 0) {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS });
    const commands = [1, 1, 1, 2, 1].map((lun) => peer.submit('none', 0, { lun: [lun << 16, 0] }));
    const requests = peer.sent();
    peer.nowMs = 1500;
    peer.send({
      opcode: OP.scsiResponse,
      itt: requests[2]!.itt,
      ttt: 0,
      byte3: 2,
      data: senseOf(asc, ascq),
    });
    return { peer, commands, requests };
  }

  it.each([
    [0x29, 'power on or reset'],
    [0x2f, 'commands cleared by another initiator'],
  ])('ASC %i (%s) aborts the commands before it at once, one by one', (asc) => {
    const { peer, commands, requests } = told(asc);
    for (const at of [0, 1]) {
      const abort = peer.sentOne(FROM.taskManagement);
      expect([abort.flags, abort.word20]).toEqual([F | ABORT_TASK, requests[at]!.itt]);
      peer.send(answer(abort.itt, 1));
    }
    expect(peer.sent()).toEqual([]);
    const outcomes = commands.map(({ outcome }) => outcome);
    expect(outcomes).toEqual(['aborted', 'aborted', 'answered', 'pending', 'pending']);
  });

  it.each([0x28, 0x2a, 0x3f])('ASC %i clears no task, so no task is aborted', (asc) => {
    const { peer, commands } = told(asc);
    expect([peer.sent(), commands[0]?.outcome]).toEqual([[], 'pending']);
  });

  it('a command that is answered after all is not aborted', () => {
    const { peer, commands, requests } = told(0x29);
    const abort = peer.sentOne(FROM.taskManagement);
    peer.respond(requests[0]!);
    peer.respond(requests[1]!);
    peer.send(answer(abort.itt, 1));
    expect(peer.sent()).toEqual([]);
    expect(commands[0]?.outcome).toBe('answered');
    expect(peer.session.state).toBe('loggedIn');
  });
});

describe('a reset of a logical unit that was asked for', () => {
  const LUN: readonly [number, number] = [0x00010000, 0];
  const ask = (peer: ScriptedPeer, upper: number, request: number) =>
    peer.session.flow.resetUnit({ lun: { upper, lower: 0 }, request }, peer.nowMs);
  const wanted = (config: Config = {}) => {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS, ...config });
    const command = peer.submit('none', 0, { lun: LUN });
    const other = peer.submit('none', 0, { lun: [0x00020000, 0] });
    peer.sent();
    ask(peer, LUN[0], 1);
    peer.at(peer.nowMs);
    return { peer, command, other };
  };
  const ends = (peer: ScriptedPeer) =>
    peer.take('unitReset').map(({ request, isDone }) => [request, isDone]);

  it('the target is asked once, and the tasks of the LUN end with its answer', () => {
    const { peer, command, other } = wanted();
    const reset = peer.sentOne(FROM.taskManagement);
    expect(reset).toMatchObject({ flags: F | LU_RESET, lun: LUN, word20: NO_TAG });
    peer.send(answer(reset.itt, 0));
    expect([command.outcome, other.outcome]).toEqual(['aborted', 'pending']);
    expect(ends(peer)).toEqual([[1, true]]);
  });

  it.each([
    ['rejects it', (peer: ScriptedPeer, itt: number) => peer.send(answer(itt, 255))],
    ['does not know it', (peer: ScriptedPeer, itt: number) => peer.send(answer(itt, 5))],
    ['has no such LUN', (peer: ScriptedPeer, itt: number) => peer.send(answer(itt, 2))],
    ['does not answer in time', (peer: ScriptedPeer) => peer.at(peer.nowMs + 7000)],
  ])('nothing follows, and no task ends, if the target %s', (_how, act) => {
    const { peer, command } = wanted();
    act(peer, peer.sentOne(FROM.taskManagement).itt);
    expect(ends(peer)).toEqual([[1, false]]);
    expect([peer.sent(), command.outcome, peer.session.state]).toEqual([[], 'pending', 'loggedIn']);
  });

  it('a reset has not been done if the link ends first, or was not there', () => {
    const { peer } = wanted();
    peer.loseLink();
    expect(ends(peer)).toEqual([[1, false]]);
    ask(peer, LUN[0], 1);
    peer.at(peer.nowMs);
    expect(ends(peer)).toEqual([[1, false]]);
  });

  it('a second one waits for the first', () => {
    const { peer } = wanted();
    ask(peer, 0x00020000, 2);
    peer.at(peer.nowMs);
    const first = peer.sentOne(FROM.taskManagement);
    peer.send(answer(first.itt, 0));
    const second = peer.sentOne(FROM.taskManagement);
    expect([first.lun, second.lun]).toEqual([LUN, [0x00020000, 0]]);
    peer.send(answer(second.itt, 0));
    expect(ends(peer)).toEqual([
      [1, true],
      [2, true],
    ]);
  });
});
