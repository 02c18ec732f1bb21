import { describe, expect, it } from 'vitest';
import { FROM, OP } from '../../helpers/peer-pdu.js';
import { type Config, patternOf, ScriptedPeer } from '../../helpers/scripted-peer.js';

const KIB = 1024;
const F = 0x80;

/** Feeds `bytes` at that rate, ten times a second, for so long or until the link is given up. */
function feedSlowly(
  peer: ScriptedPeer,
  bytes: Buffer,
  pace: { readonly bytesPerSecond: number; readonly forMs?: number },
): void {
  const startMs = peer.nowMs;
  const endMs = startMs + (pace.forMs ?? Number.POSITIVE_INFINITY);
  let at = 0;
  while (at < bytes.length && peer.linkIsOpen && peer.nowMs < endMs) {
    const nowMs = peer.nowMs + 100;
    const end = Math.floor(((nowMs - startMs) * pace.bytesPerSecond) / 1000);
    peer.nowMs = nowMs;
    if (end > at) peer.feed(bytes.subarray(at, end));
    at = Math.max(at, end);
    if (nowMs >= peer.session.deadlineAtMs) peer.at(nowMs);
  }
}

function reading(length: number, config: Config = {}) {
  const peer = ScriptedPeer.loggedIn(config);
  const command = peer.submit('read', length);
  const { itt } = peer.sentOne(FROM.scsiCommand);
  const bytes = peer.encode({ opcode: OP.dataIn, itt, flags: F | 1, data: patternOf(length) });
  return { peer, command, bytes };
}

describe('RFC 7143 §11.18 (NOP-Out): life is progress', () => {
  it.each([
    ['header', 0],
    ['data segment', 300],
  ])('a target that sends one byte a second of a %s loses its connection', (_what, skipped) => {
    const { peer, command, bytes } = reading(16 * KIB);
    peer.feed(bytes.subarray(0, skipped));
    feedSlowly(peer, bytes.subarray(skipped), { bytesPerSecond: 1, forMs: 60_000 });
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
    expect([peer.session.state, command.outcome]).toEqual(['reconnecting', 'lost']);
    expect(peer.nowMs).toBeLessThanOrEqual(1000 + 3 * 5000);
  });

  it('a target that trickles a digest and its padding loses its connection', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DataDigest: 'CRC32C' } });
    peer.submit('read', 513);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const bytes = peer.encode({ opcode: OP.dataIn, itt, flags: F | 1, data: patternOf(513) });
    peer.feed(bytes.subarray(0, 48 + 513));
    feedSlowly(peer, bytes.subarray(48 + 513), { bytesPerSecond: 0.1 });
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
  });

  it.each([
    ['100 KB/s, which takes 2.6 s', 100_000, 1000],
    ['60 KB/s, with the usual times', 60_000, 5000],
    ['5 KB/s, which takes 52 s', 5000, 5000],
  ])('a slow link of %s brings a Data-In of 256 KiB and lives', (_what, bytesPerSecond, noopMs) => {
    const { peer, command, bytes } = reading(256 * KIB, {
      offer: { maxRecvDataSegmentLength: 256 * KIB },
      timers: { noopIntervalMs: noopMs, noopTimeoutMs: noopMs },
    });
    feedSlowly(peer, bytes, { bytesPerSecond });
    expect([peer.session.state, command.outcome]).toEqual(['loggedIn', 'answered']);
    expect(command.dataIn.toBuffer()).toEqual(patternOf(256 * KIB));
  });

  it('a link that stalls in the middle of a PDU loses its connection', () => {
    const { peer, bytes } = reading(256 * KIB, {
      offer: { maxRecvDataSegmentLength: 256 * KIB },
    });
    feedSlowly(peer, bytes.subarray(0, 200 * KIB), { bytesPerSecond: 100_000 });
    expect(peer.session.state).toBe('loggedIn');
    const endMs = peer.nowMs + 12_000;
    while (peer.linkIsOpen && peer.session.deadlineAtMs <= endMs)
      peer.at(peer.session.deadlineAtMs);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
  });

  it('a PDU that begins after a long silence has time to arrive', () => {
    const { peer, command, bytes } = reading(256 * KIB, {
      offer: { maxRecvDataSegmentLength: 256 * KIB },
    });
    peer.at(6000);
    peer.at(10_900);
    peer.nowMs = 10_900;
    feedSlowly(peer, bytes, { bytesPerSecond: 60_000 });
    expect(command.outcome).toBe('answered');
  });

  it.each([
    ['exactly as long as the answer may take', [11_000]],
    ['for a minute', [70_000]],
    ['after the first look', [10_900, 30_000]],
    ['twice in a row', [11_000, 40_000]],
  ])(
    'a process that stands still %s reads its socket before it calls the path dead',
    (_what, rings) => {
      const peer = ScriptedPeer.loggedIn();
      peer.at(6000);
      const { itt } = peer.sentOne(FROM.nopOut);
      // The timer rings before the socket is read.
      for (const atMs of rings) peer.at(atMs);
      expect(peer.session.state).toBe('loggedIn');
      peer.send({ opcode: OP.nopIn, itt });
      peer.at(peer.session.deadlineAtMs);
      expect(peer.session.state).toBe('loggedIn');
    },
  );

  it('a process that never gets on with its work gives a silent path up in the end', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.at(6000);
    for (let minute = 1; minute <= 5; minute += 1) peer.at(minute * 60_000);
    expect(peer.session.state).toBe('loggedIn');
    peer.at(6 * 60_000);
    expect(peer.failure).toMatchObject({ code: 'ERR_LINK', errno: 'ETIMEDOUT' });
  });
});
