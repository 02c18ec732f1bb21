import { describe, expect, it } from 'vitest';
import { SendQueue } from '../../../src/base/send-queue.js';
import { SLAB_BYTES } from '../../../src/base/slab.js';
import { FROM, type InitiatorPdu, OP } from '../../helpers/peer-pdu.js';
import { patternOf, ScriptedPeer } from '../../helpers/scripted-peer.js';

const SEGMENT_BYTES = 16;
const PDU_BYTES = 48 + SEGMENT_BYTES;
const LUN = [0x00010000, 0] as const;
const TIMERS = { noopIntervalMs: 0 };

/** Data-In for all of `requests`, by turns, in segments of 16 bytes of `bytes`. */
function feedSegments(peer: ScriptedPeer, requests: readonly InitiatorPdu[], bytes: Buffer): void {
  const templates = requests.map(({ itt }) =>
    peer.encode({ opcode: OP.dataIn, flags: 0, itt, data: Buffer.alloc(SEGMENT_BYTES) }),
  );
  const feed = Buffer.alloc(SLAB_BYTES);
  let filled = 0;
  for (let at = 0; at < bytes.length; at += SEGMENT_BYTES) {
    for (const template of templates) {
      template.copy(feed, filled);
      feed.writeUInt32BE(at / SEGMENT_BYTES, filled + 36);
      feed.writeUInt32BE(at, filled + 40);
      bytes.copy(feed, filled + 48, at, at + SEGMENT_BYTES);
      filled += PDU_BYTES;
      if (filled < SLAB_BYTES) continue;
      peer.feed(feed);
      filled = 0;
    }
  }
  peer.feed(feed.subarray(0, filled));
}

describe('a target that sends small segments', () => {
  it('a read of 32 MiB in segments of 16 bytes reaches its client, and the process survives', () => {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS });
    const length = 32 << 20;
    const command = peer.submit('read', length);
    const request = peer.sentOne(FROM.scsiCommand);
    const bytes = patternOf(length);
    feedSegments(peer, [request], bytes);
    peer.respond(request);
    expect(command.outcome).toBe('answered');
    const client = new SendQueue(peer.pool);
    client.pushFragments(command.dataIn);
    expect(client.count).toBeLessThan(40_000);
    expect(command.dataIn.toBuffer().equals(bytes)).toBe(true);
    client.clear();
    command.dataIn.clear();
  });

  it('two reads whose segments come in turns have few pieces each', () => {
    const peer = ScriptedPeer.loggedIn({ timers: TIMERS });
    const length = 1 << 20;
    const commands = [peer.submit('read', length), peer.submit('read', length)];
    const requests = peer.sent();
    const bytes = patternOf(length, 5);
    feedSegments(peer, requests, bytes);
    for (const request of requests) peer.respond(request);
    for (const { dataIn } of commands) {
      expect(dataIn.count).toBeLessThan(2000);
      expect(dataIn.toBuffer().equals(bytes)).toBe(true);
    }
  });

  it('a target that requests a write byte by byte and reads nothing loses its connection', () => {
    const peer = ScriptedPeer.loggedIn(
      { timers: TIMERS },
      { keys: { ImmediateData: 'No', InitialR2T: 'Yes' } },
    );
    const command = peer.submit('write', 4 << 20, { operation: 0x2a });
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const template = peer.encode({ opcode: OP.r2t, lun: LUN, itt, ttt: 1, word44: 1 });
    const feed = Buffer.alloc(48 * 20_000);
    for (let asked = 0; command.outcome === 'pending' && asked < 4 << 20; ) {
      for (let at = 0; at < feed.length; at += 48) {
        template.copy(feed, at);
        feed.writeUInt32BE(asked, at + 36);
        feed.writeUInt32BE(asked, at + 40);
        asked += 1;
      }
      peer.feed(feed);
    }
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL' });
    expect([command.outcome, peer.session.state]).toEqual(['lost', 'reconnecting']);
  });
});
