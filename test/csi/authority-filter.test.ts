import { describe, expect, it } from 'vitest';
import { AuthorityFilter } from '../../src/csi/authority-filter.js';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
const SETTINGS = frameOf(4, 0, Buffer.alloc(0));
const PATH = '/var/lib/kubelet/plugins_registry/iscsi-nbd-reg.sock';
/** `:method: POST` and `:scheme: http`, of the static table. */
const INDEXED = Buffer.from([0x83, 0x86]);
const AFTER = Buffer.concat([Buffer.from([0x40]), textOf('te'), textOf('trailers')]);

function frameOf(type: number, flags: number, payload: Buffer): Buffer {
  const header = Buffer.from([0, 0, 0, type, flags, 0, 0, 0, 1]);
  header.writeUIntBE(payload.length, 0, 3);
  return Buffer.concat([header, payload]);
}

/** A string that is not compressed, with a length below 127 or above. */
function textOf(text: string): Buffer {
  const { length } = text;
  const head = length < 127 ? [length] : [127, ((length - 127) & 127) | 128, (length - 127) >> 7];
  return Buffer.concat([Buffer.from(head), Buffer.from(text)]);
}

/** Headers whose host has a name of this kind: indexed (0x41), not indexed (1), never (0x11). */
function headersOf(host: string, kind = 0x41): Buffer {
  return Buffer.concat([INDEXED, Buffer.from([kind]), textOf(host), AFTER]);
}

function filtered(...frames: readonly Buffer[]): Buffer {
  return new AuthorityFilter().feed(Buffer.concat([PREFACE, SETTINGS, ...frames]));
}

function expected(...frames: readonly Buffer[]): Buffer {
  return Buffer.concat([PREFACE, SETTINGS, ...frames]);
}

describe('the host of a request', () => {
  it.each([
    ['a path', PATH, 0x41],
    ['a long path', `/${'x'.repeat(400)}`, 0x41],
    ['no indexed name', PATH, 0x01],
    ['a name that is never indexed', PATH, 0x11],
    ['no characters', '', 0x41],
  ])('a host with %s is localhost, and all else stays', (_case, host, kind) => {
    const data = frameOf(0, 1, Buffer.from([0, 0, 0, 0, 0]));
    const frames = [frameOf(1, 4, headersOf(host, kind)), data, frameOf(1, 4, INDEXED)];
    const wanted = [frameOf(1, 4, headersOf('localhost', kind)), data, frameOf(1, 4, INDEXED)];
    expect(filtered(...frames)).toEqual(expected(...wanted));
  });

  it('bytes that arrive one by one become the same', () => {
    const bytes = expected(frameOf(1, 4, headersOf(PATH)), frameOf(0, 1, Buffer.from('data')));
    const filter = new AuthorityFilter();
    const out = [...bytes].map((_byte, at) => filter.feed(bytes.subarray(at, at + 1)));
    expect(Buffer.concat(out)).toEqual(filtered(bytes.subarray(PREFACE.length + SETTINGS.length)));
  });

  it('headers with a priority have theirs behind it', () => {
    const priority = Buffer.from([0, 0, 0, 0, 15]);
    const frame = (host: string) => {
      return frameOf(1, 0x24, Buffer.concat([priority, headersOf(host)]));
    };
    expect(filtered(frame(PATH))).toEqual(expected(frame('localhost')));
  });

  it.each([
    ['padded headers', frameOf(1, 0x0c, Buffer.concat([Buffer.from([0]), headersOf(PATH)]))],
    ['a text that is longer than its frame', frameOf(1, 4, Buffer.from([0x41, 0x50, 0x2f]))],
    ['an integer without an end', frameOf(1, 4, Buffer.from([0x41, 0x7f, 255, 255, 255, 255]))],
    ['an integer that is cut off', frameOf(1, 4, Buffer.from([0x41, 0x7f, 255]))],
    ['a host that another table has', frameOf(1, 4, Buffer.from([0x83, 0xbe]))],
    ['a new size of the table and no host', frameOf(1, 4, Buffer.from([0x3f, 0xe1, 0x1f, 0x83]))],
    ['more than a frame may have', frameOf(1, 4, Buffer.alloc(16_385, 0x83))],
  ])('%s go through as they are', (_case, frame) => {
    expect(filtered(frame)).toEqual(expected(frame));
  });

  it('random frames are never longer by more than a host, and end nothing', () => {
    let state = 1;
    const next = () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return state >>> 16;
    };
    for (let round = 0; round < 2000; round += 1) {
      const block = Buffer.from(Array.from({ length: next() % 60 }, () => next() & 255));
      const frame = frameOf(1, next() & 255, block);
      const out = filtered(frame).subarray(PREFACE.length + SETTINGS.length);
      expect(out.readUIntBE(0, 3)).toBe(out.length - 9);
      expect(out.length).toBeLessThanOrEqual(frame.length + 'localhost'.length);
    }
  });
});
