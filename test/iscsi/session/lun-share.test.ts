import { describe, expect, it } from 'vitest';
import { FROM, type InitiatorPdu, type Lun, OP } from '../../helpers/peer-pdu.js';
import { type Config, ScriptedPeer } from '../../helpers/scripted-peer.js';

const TIMERS = { noopIntervalMs: 0 };
const lunOf = (number: number): Lun => [number << 16, 0];

function loggedIn(queueDepthMax: number, windowSize = 1000, config: Config = {}): ScriptedPeer {
  const answers = { maxCmdSN: windowSize, expCmdSN: 1 };
  return ScriptedPeer.loggedIn({ timers: TIMERS, queueDepthMax, ...config }, answers);
}

function submit(peer: ScriptedPeer, lun: number, count = 1) {
  return Array.from({ length: count }, () => peer.submit('none', 0, { lun: lunOf(lun) }));
}

/** Numbers of the LUNs of what has been sent. */
const lunsOf = (pdus: readonly InitiatorPdu[]) => pdus.map(({ lun }) => lun[0] >>> 16);

/** GOOD, without moving the window. */
function good(peer: ScriptedPeer, request: InitiatorPdu): void {
  peer.send({ opcode: OP.scsiResponse, itt: request.itt, ttt: 0 });
}

describe('the queue depth', () => {
  it('one LUN alone may use all of it', () => {
    const peer = loggedIn(32);
    submit(peer, 1, 100);
    expect(peer.sent()).toHaveLength(32);
  });

  it('a LUN that hangs with the whole depth does not stop a LUN that starts later', () => {
    const peer = loggedIn(32);
    submit(peer, 1, 100);
    peer.sent();
    submit(peer, 2, 100);
    const requests = peer.sent();
    // A half of the depth, divided by two LUNs.
    expect(lunsOf(requests)).toEqual(Array(8).fill(2));
    for (const request of requests) good(peer, request);
    expect(lunsOf(peer.sent())).toEqual(Array(8).fill(2));
  });

  it('a LUN that hangs leaves the share of a LUN that was active before', () => {
    const peer = loggedIn(32);
    submit(peer, 2);
    good(peer, peer.sentOne(FROM.scsiCommand));
    submit(peer, 1, 100);
    expect(peer.sent()).toHaveLength(24);
    submit(peer, 2, 100);
    expect(lunsOf(peer.sent())).toEqual(Array(8).fill(2));
  });

  it('a command window of constant size holds a place for an idle LUN for ever', () => {
    const peer = loggedIn(32, 16);
    submit(peer, 2);
    good(peer, peer.sentOne(FROM.scsiCommand));
    for (let second = 2; second < 100; second += 1) peer.at(second * 1000);
    submit(peer, 1, 100);
    expect(lunsOf(peer.sent())).toEqual(Array(14).fill(1));
    submit(peer, 2);
    expect(lunsOf(peer.sent())).toEqual([2]);
    expect(peer.session.connection?.window.isOpen).toBe(false);
  });

  it('a depth of one command is one command for each LUN', () => {
    const peer = loggedIn(1);
    for (const lun of [1, 2, 3]) submit(peer, lun, 5);
    expect(lunsOf(peer.sent())).toEqual([1, 2, 3]);
  });

  it('LUNs are served round robin, each in its own order', () => {
    const peer = loggedIn(32, 0);
    const commands = [1, 2, 3].map((lun) => submit(peer, lun, 3));
    expect(peer.sent()).toEqual([]);
    peer.maxCmdSN = 9;
    peer.send({ opcode: OP.nopIn });
    const requests = peer.sent();
    expect(lunsOf(requests)).toEqual([1, 2, 3, 1, 2, 3, 1, 2, 3]);
    good(peer, requests[4]!);
    expect(commands[1]?.map(({ outcome }) => outcome)).toEqual(['pending', 'answered', 'pending']);
  });

  it('shares never make more tasks than there are slots for', () => {
    const peer = loggedIn(4096, 100_000);
    submit(peer, 1, 5000);
    submit(peer, 2, 5000);
    expect(peer.sent()).toHaveLength(4096);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('the window of the target is never exceeded', () => {
    const peer = loggedIn(32, 5);
    for (let lun = 1; lun < 20; lun += 1) submit(peer, lun, 2);
    peer.submit('none', 0, { lun: lunOf(1), isControl: true });
    expect(peer.sent()).toHaveLength(5);
  });

  it('waiting commands are lost on a lost link, those of one LUN in their order', () => {
    const peer = loggedIn(1);
    const [ones, twos] = [1, 2].map((lun) => submit(peer, lun, 4));
    peer.loseLink();
    expect(peer.done).toHaveLength(8);
    for (const commands of [ones, twos]) {
      const order = commands?.slice(1).map((command) => peer.done.indexOf(command));
      expect(order).toEqual([...order!].sort((left, right) => left - right));
    }
    expect(peer.session.flow.waitingCount).toBe(0);
  });

  it('commands in flight are counted from zero again after a lost link', () => {
    const peer = loggedIn(4);
    submit(peer, 1, 10);
    peer.loseLink();
    peer.at(10_000);
    peer.login();
    submit(peer, 1, 10);
    expect(peer.sent()).toHaveLength(4);
  });

  it('a thousand LUNs with one command each leave the depth as it was', () => {
    const peer = loggedIn(32, 10_000);
    for (let lun = 1; lun <= 1000; lun += 1) {
      submit(peer, lun);
      good(peer, peer.sentOne(FROM.scsiCommand));
    }
    submit(peer, 1, 100);
    expect(peer.sent().length).toBeGreaterThanOrEqual(16);
  });
});

describe('a control command', () => {
  it('a control command does not wait for the depth, and reports once that it was sent', () => {
    const peer = loggedIn(2);
    submit(peer, 1, 10);
    const requests = peer.sent();
    let sent = 0;
    const onSent = () => {
      sent += 1;
    };
    const command = peer.submit('none', 0, { lun: lunOf(1), isControl: true, onSent });
    expect([peer.sent().length, sent, command.onSent]).toEqual([1, 1, null]);
    good(peer, requests[0]!);
    expect(peer.sent()).toHaveLength(1);
    expect(sent).toBe(1);
  });

  it('a control command waits for the window, before the block I/O that waits longer', () => {
    const peer = loggedIn(8, 2);
    submit(peer, 1, 5);
    const requests = peer.sent();
    let sent = 0;
    peer.submit('none', 0, {
      lun: lunOf(2),
      isControl: true,
      onSent: () => {
        sent += 1;
      },
    });
    expect([peer.sent(), sent]).toEqual([[], 0]);
    peer.maxCmdSN = 3;
    good(peer, requests[0]!);
    expect([lunsOf(peer.sent()), sent]).toEqual([[2], 1]);
  });

  it('a control command claims no share of the depth', () => {
    const peer = loggedIn(16);
    peer.submit('none', 0, { lun: lunOf(0), isControl: true });
    peer.sent();
    submit(peer, 1, 100);
    expect(peer.sent()).toHaveLength(16);
  });
});

describe('a LUN with a maximum of its own', () => {
  it('a LUN limited to one gets one command at a time, over reconnects too', () => {
    const peer = loggedIn(32);
    peer.session.flow.limitLun({ upper: 1 << 16, lower: 0 }, 1);
    for (let login = 0; login < 2; login += 1) {
      submit(peer, 1, 3);
      submit(peer, 2, 3);
      expect(lunsOf(peer.sent()).sort()).toEqual([1, 2, 2, 2]);
      const question = peer.submit('none', 0, { lun: lunOf(1), isControl: true });
      expect(peer.sent()).toEqual([]);
      expect(question.outcome).toBe('pending');
      peer.loseLink();
      peer.at(peer.nowMs + 10_000);
      peer.login();
    }
  });

  it('the next command follows the response, a control command before the others', () => {
    const peer = loggedIn(32);
    peer.session.flow.limitLun({ upper: 1 << 16, lower: 0 }, 1);
    submit(peer, 1, 2);
    const first = peer.sentOne(FROM.scsiCommand);
    const onSent = () => undefined;
    const question = peer.submit('none', 0, { lun: lunOf(1), isControl: true, onSent });
    good(peer, first);
    const second = peer.sentOne(FROM.scsiCommand);
    expect(question.onSent).toBe(null);
    good(peer, second);
    expect(question.outcome).toBe('answered');
    peer.sentOne(FROM.scsiCommand);
  });

  it('a limit of Infinity lifts the one before', () => {
    const peer = loggedIn(32);
    const lun = { upper: 1 << 16, lower: 0 };
    peer.session.flow.limitLun(lun, 1);
    submit(peer, 1, 4);
    const first = peer.sentOne(FROM.scsiCommand);
    peer.session.flow.limitLun(lun, Number.POSITIVE_INFINITY);
    good(peer, first);
    expect(peer.sent()).toHaveLength(3);
  });
});
