import { expect, test } from 'vitest';
import { LinkError } from '../../src/base/errors.js';
import type { ScsiRequest, SessionState } from '../../src/config/contract.js';
import { PassthroughQueue } from '../../src/session/passthrough-queue.js';
import { VirtualClock } from '../helpers/virtual-clock.js';

const GOOD = { status: 0, data: Buffer.from('data'), sense: Buffer.alloc(0) };

function request(...cdb: number[]): ScsiRequest {
  return { lun: 0, cdb: Buffer.from(cdb), direction: 'read', length: 4 };
}

class Session {
  state: SessionState = 'loggedIn';
  isCut = false;
  stuckOn: Error | null = null;
  readonly clock = new VirtualClock();
  trouble: LinkError | null = null;
  readonly sent: number[] = [];
  readonly path = new PassthroughQueue({
    state: () => this.state,
    stuckOn: () => this.stuckOn,
    clock: this.clock,
    patienceMs: () => 75_000,
    trouble: () => this.trouble,
    send: async ({ cdb }) => {
      this.sent.push(cdb[0] ?? 0);
      if (this.state !== 'loggedIn' || this.isCut) throw new LinkError('ECONNRESET', 'it went');
      return GOOD;
    },
  });

  become(state: SessionState): void {
    this.state = state;
    this.path.stateChanged(state);
  }
}

test('INQUIRY and REPORT LUNS are answered from the cache, each for its own LUN and page', async () => {
  const session = new Session();
  await session.path.execute(request(0x12, 1, 0x83));
  await session.path.execute(request(0xa0));
  session.become('reconnecting');
  expect(await session.path.execute(request(0x12, 1, 0x83))).toEqual({ ...GOOD, cached: true });
  expect(await session.path.execute(request(0xa0))).toEqual({ ...GOOD, cached: true });
  const unknownPage = session.path.execute(request(0x12, 1, 0x80));
  session.become('loggedIn');
  expect(await unknownPage).toEqual(GOOD);
});

test('a pending command fails at an outage, and a pending INQUIRY is answered from the cache', async () => {
  const session = new Session();
  await session.path.execute(request(0x12));
  session.isCut = true;
  const inquiry = session.path.execute(request(0x12));
  const other = session.path.execute(request(0x25));
  session.become('reconnecting');
  expect(await inquiry).toEqual({ ...GOOD, cached: true });
  await expect(other).rejects.toThrow('it went');
});

test('waiting commands are bounded, and fail when the session is removed or logged out', async () => {
  const session = new Session();
  session.become('reconnecting');
  const waiting = Array.from({ length: 64 }, () => session.path.execute(request(0x25)));
  await expect(session.path.execute(request(0x25))).rejects.toMatchObject({ errno: 'ENOBUFS' });
  session.become('removed');
  const ends = await Promise.allSettled(waiting);
  expect(ends.every((end) => end.status === 'rejected')).toBe(true);
  await expect(session.path.execute(request(0x25))).rejects.toMatchObject({ errno: 'ENOTCONN' });
  expect(session.sent).toEqual([]);
});

test('commands fail with the broken rule when the target breaks the same one on each connection', async () => {
  const session = new Session();
  session.become('reconnecting');
  const waiting = session.path.execute(request(0x25));
  session.stuckOn = new Error('StatSN 9 where 5 is next');
  session.path.stuck(session.stuckOn);
  await expect(waiting).rejects.toBe(session.stuckOn);
  session.become('loggedIn');
  session.isCut = true;
  const inquiry = session.path.execute(request(0x12));
  session.become('reconnecting');
  await expect(inquiry).rejects.toBe(session.stuckOn);
});

test('a command is sent over reconnects until its one deadline, and fails then with the last trouble', async () => {
  const session = new Session();
  session.isCut = true;
  session.trouble = new LinkError('ECONNRESET', 'the target closed the connection');
  let end: unknown = null;
  const inquiry = session.path.execute(request(0x12)).catch((error: unknown) => {
    end = error;
  });
  const turn = () => new Promise(setImmediate);
  session.become('reconnecting');
  await turn();
  for (let outages = 1; outages <= 7; outages += 1) {
    session.clock.pass(12_000);
    session.become('loggedIn');
    session.become('reconnecting');
    await turn();
  }
  await inquiry;
  expect(end).toMatchObject({
    errno: 'ETIME',
    message: expect.stringMatching(/within 75 s.*closed the connection/),
  });
  expect(session.sent.length).toBe(7);
  expect(session.clock.timers).toBe(0);
});

test('a command whose link goes when its deadline has passed fails as one that had its time', async () => {
  const session = new Session();
  session.isCut = true;
  const inquiry = session.path.execute(request(0x12));
  session.clock.pass(75_000);
  session.become('reconnecting');
  await expect(inquiry).rejects.toMatchObject({
    errno: 'ETIME',
    message: expect.stringMatching(/within 75 s, over all reconnects: it went/),
  });
});
