import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../src/base/errors.js';
import type { TextResponse } from '../../../src/iscsi/pdu/login-pdu.js';
import type { TextPair } from '../../../src/iscsi/pdu/text.js';
import { QuirkLog } from '../../../src/iscsi/quirks/quirks.js';
import { parseSendTargets, SEND_TARGETS_ALL } from '../../../src/iscsi/session/send-targets.js';
import { TextExchange } from '../../../src/iscsi/session/text-exchange.js';

const RESERVED = 0xffffffff;
const VIA = { host: '10.1.0.45', port: 3000, portalGroupTag: 7 };
const section = (number: string) => expect.objectContaining({ section: number });

function exchange(pairs: readonly TextPair[] = SEND_TARGETS_ALL, length = 8192) {
  const quirks = new QuirkLog();
  const machine = new TextExchange({
    pairs,
    initiatorTaskTag: 9,
    targetMaxRecvDataSegmentLength: length,
    quirks,
  });
  return { machine, first: machine.start(), quirks };
}

const response = (fields: Partial<TextResponse>): TextResponse => ({
  final: true,
  continued: false,
  lun: { upper: 0, lower: 0 },
  initiatorTaskTag: 9,
  targetTransferTag: RESERVED,
  data: Buffer.alloc(0),
  ...fields,
});

const part = (text: string, fields: Partial<TextResponse> = {}) =>
  response({ final: false, targetTransferTag: 0x12345678, data: Buffer.from(text), ...fields });

describe('RFC 7143 §11.10.4 (Target Transfer Tag): the example of a long answer', () => {
  it('the exchange is a request with F, then empty ones that copy tag and LUN', () => {
    const { machine, first } = exchange();
    expect(first).toMatchObject({ final: true, continued: false, targetTransferTag: RESERVED });
    expect(first.data.toString()).toBe('SendTargets=All\0');
    const lun = { upper: 0x00010000, lower: 5 };
    const step = machine.responseReceived(part('TargetName=iqn.1993-11', { lun }));
    expect(step).toMatchObject({
      type: 'send',
      request: { final: true, continued: false, targetTransferTag: 0x12345678, lun },
    });
    machine.responseReceived(part('.com.example:a\0', { continued: true }));
    expect(
      machine.responseReceived(response({ data: Buffer.from('TargetAddress=h,1\0') })),
    ).toEqual({
      type: 'done',
      pairs: [
        ['TargetName', 'iqn.1993-11.com.example:a'],
        ['TargetAddress', 'h,1'],
      ],
    });
  });

  it('the Target Transfer Tag of a final response is ignored', () => {
    const step = exchange().machine.responseReceived(response({ targetTransferTag: 1 }));
    expect(step).toEqual({ type: 'done', pairs: [] });
  });
});

describe('RFC 7143 §11.11 (Text Response)', () => {
  it.each([
    ['11.11.1', { final: false, continued: true }],
    ['11.11.2', { continued: true }],
    ['11.11.3', { initiatorTaskTag: 8 }],
  ])('a response that breaks §%s by %j is rejected', (number, fields) => {
    expect(() => exchange().machine.responseReceived(response(fields))).toThrow(section(number));
  });

  it('a target that ends its answer without the F bit and without a tag has ended it (open-iscsi)', () => {
    const { machine, quirks } = exchange();
    const data = Buffer.from('TargetName=iqn.1993-11.com.example:a\0');
    expect(machine.responseReceived(response({ final: false, data }))).toMatchObject({
      type: 'done',
      pairs: [['TargetName', 'iqn.1993-11.com.example:a']],
    });
    expect(quirks.all).toMatchObject([{ quirk: 'text-end', section: '11.11.1' }]);
  });

  it('§11.10.2 (C (Continue) Bit): a long request is sent in parts without F', () => {
    const { machine, first } = exchange([['X-a', 'y'.repeat(900)]], 512);
    expect(first).toMatchObject({ final: false, continued: true });
    expect(first.data).toHaveLength(512);
    expect(() => machine.responseReceived(response({}))).toThrow(section('11.11.1'));
    const step = machine.responseReceived(part(''));
    expect(step).toMatchObject({ request: { final: true, continued: false } });
  });

  it('a response with the C bit gets an empty request', () => {
    const { machine } = exchange([['X-a', 'y'.repeat(900)]], 512);
    expect(() => machine.responseReceived(part('X=1\0'))).toThrow(section('6.2'));
  });

  it('a response is bounded, in bytes and in rounds', () => {
    const long = (text: string, rounds: number) => () => {
      const { machine } = exchange();
      for (let round = 0; round < rounds; round += 1) machine.responseReceived(part(text));
    };
    expect(long('', 5000)).toThrow(section('6.2'));
    expect(long('x'.repeat(1 << 20), 20)).toThrow(section('6.1'));
  });
});

describe('RFC 7143 Appendix C (SendTargets Operation)', () => {
  const first = 'iqn.1993-11.com.example:diskarray.sn.8675309';
  const second = 'iqn.1993-11.com.example:diskarray.sn.1234567';

  it('a target without an address is at the portal of the request', () => {
    expect(parseSendTargets([['TargetName', first]], VIA)).toEqual({
      targets: [{ name: first, portals: [{ host: '10.1.0.45', port: 3000 }] }],
      warnings: [],
    });
  });

  it('the example with two targets and two portals each is read', () => {
    const addresses: TextPair[] = [
      ['TargetAddress', '10.1.0.45:3000,1'],
      ['TargetAddress', '10.1.1.45:3000,2'],
    ];
    const portals = [
      { host: '10.1.0.45', port: 3000, portalGroupTag: 1 },
      { host: '10.1.1.45', port: 3000, portalGroupTag: 2 },
    ];
    const pairs: TextPair[] = [
      ['TargetName', first],
      ...addresses,
      ['TargetName', second],
      ...addresses,
    ];
    expect(parseSendTargets(pairs, VIA).targets).toEqual([
      { name: first, portals },
      { name: second, portals },
    ]);
  });

  it('records of one name are joined, and repeated addresses are one', () => {
    const { targets } = parseSendTargets(
      [
        ['TargetName', first],
        ['TargetAddress', 'a:1,1'],
        ['TargetName', first],
        ['TargetAddress', 'a:1,1'],
        ['TargetAddress', '[::1],1'],
      ],
      VIA,
    );
    expect(targets).toHaveLength(1);
    expect(targets[0]?.portals.map(({ host }) => host)).toEqual(['a', '::1']);
  });

  it.each(['0.0.0.0:3260,1', '[::]:3260,1'])(
    'the address %s stands for the host of the request',
    (address) => {
      const pairs: TextPair[] = [
        ['TargetName', first],
        ['TargetAddress', address],
      ];
      expect(parseSendTargets(pairs, VIA).targets[0]?.portals).toEqual([
        { host: '10.1.0.45', port: 3260, portalGroupTag: 1 },
      ]);
    },
  );

  it('an invalid record is left out with a warning and hides no other', () => {
    const { targets, warnings } = parseSendTargets(
      [
        ['TargetName', 'not a name\u001b[2J'],
        ['TargetAddress', 'a:1,1'],
        ['TargetName', first],
        ['TargetAddress', 'a:99999,1'],
        ['TargetName', second],
        ['TargetAddress', 'b:99999,1'],
        ['TargetAddress', 'b:1,1'],
      ],
      VIA,
    );
    expect(targets.map(({ name }) => name)).toEqual([second]);
    expect(warnings).toHaveLength(4);
    expect(warnings.join()).not.toContain('\u001b');
  });

  it('a target that rejects SendTargets is reported as that', () => {
    expect(() => parseSendTargets([['SendTargets', 'Reject']], VIA)).toThrow(ProtocolError);
  });

  it.each(['-1', '01', '65536', ''])(
    'the address of Jiva with the portal group tag %j is listed without a tag, with a warning',
    (tag) => {
      const pairs: TextPair[] = [
        ['TargetName', first],
        ['TargetAddress', `192.0.2.1:3260,${tag}`],
      ];
      const { targets, warnings } = parseSendTargets(pairs, VIA);
      expect(targets).toEqual([{ name: first, portals: [{ host: '192.0.2.1', port: 3260 }] }]);
      expect(warnings).toEqual([expect.stringContaining(`${tag}`)]);
    },
  );

  it('an IPv6 address without brackets is listed with its port, with a warning', () => {
    const pairs: TextPair[] = [
      ['TargetName', first],
      ['TargetAddress', '2001:db8:0:0:0:0:0:1:3261,2'],
    ];
    const { targets, warnings } = parseSendTargets(pairs, VIA);
    const portal = { host: '2001:db8:0:0:0:0:0:1', port: 3261, portalGroupTag: 2 };
    expect(targets).toEqual([{ name: first, portals: [portal] }]);
    expect(warnings).toEqual([expect.stringContaining('brackets')]);
  });

  it('an address before any name, and an unknown key, hide no target (open-iscsi, FreeBSD)', () => {
    const pairs: TextPair[] = [
      ['TargetAddress', 'a:1,1'],
      ['TargetAlias', 'x'],
      ['TargetName', first],
      ['Colour', 'red'],
      ['TargetAddress', 'b:1,1'],
    ];
    const { targets, warnings } = parseSendTargets(pairs, VIA);
    expect(targets).toEqual([
      { name: first, portals: [{ host: 'b', port: 1, portalGroupTag: 1 }] },
    ]);
    expect(warnings).toHaveLength(3);
  });

  it('warnings of a list are bounded', () => {
    const pairs = Array.from({ length: 5000 }, (): TextPair => ['Colour', 'red']);
    expect(parseSendTargets(pairs, VIA).warnings).toHaveLength(101);
  });

  it('an empty list of targets is a valid answer', () => {
    expect(parseSendTargets([], VIA)).toEqual({ targets: [], warnings: [] });
  });
});
