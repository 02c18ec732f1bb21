import { describe, expect, it } from 'vitest';
import { TargetDisk } from '../../src/target/disk.js';
import type { ChapSettings, TargetNodeOptions } from '../../src/target/settings.js';
import { TargetNode } from '../../src/target/target.js';
import { chapDigest, INITIATOR, NAME, pairsOf, RawInitiator, text } from './raw-initiator.js';

const chap: ChapSettings = {
  user: 'joe',
  secret: 'a secret of joe',
  mutual: { user: 'target', secret: 'another secret' },
};

function makeNode(options: Partial<TargetNodeOptions> & { chap?: ChapSettings } = {}): TargetNode {
  const target = { name: NAME, luns: { 0: TargetDisk.ram({ sizeBytes: 1 << 20 }) } };
  return new TargetNode({ targets: [{ ...target, chap: options.chap }], ...options });
}

const names = [`InitiatorName=${INITIATOR}`, `TargetName=${NAME}`, 'SessionType=Normal'];
const status = (answer: { header: Buffer }): number[] => [answer.header[36]!, answer.header[37]!];

describe('RFC 7143 §13 (Login/Text Operational Text Keys)', () => {
  const preferences = {
    initialR2T: false,
    immediateData: true,
    maxBurstLength: 65536,
    firstBurstLength: 16384,
    maxOutstandingR2T: 4,
    defaultTime2Wait: 3,
    defaultTime2Retain: 30,
  };
  it.each([
    ['§13.10 InitialR2T is an OR', 'InitialR2T=Yes', 'Yes'],
    ['§13.10 InitialR2T is an OR', 'InitialR2T=No', 'No'],
    ['§13.11 ImmediateData is an AND', 'ImmediateData=No', 'No'],
    ['§13.13 MaxBurstLength is the minimum', 'MaxBurstLength=262144', '65536'],
    ['§13.13 MaxBurstLength takes hexadecimal', 'MaxBurstLength=0x1000', '4096'],
    ['§13.14 FirstBurstLength is the minimum', 'FirstBurstLength=8192', '8192'],
    ['§13.15 DefaultTime2Wait is the maximum', 'DefaultTime2Wait=2', '3'],
    ['§13.16 DefaultTime2Retain is the minimum', 'DefaultTime2Retain=20', '20'],
    ['§13.17 MaxOutstandingR2T is the minimum', 'MaxOutstandingR2T=16', '4'],
    ['§13.18 DataPDUInOrder is an OR', 'DataPDUInOrder=No', 'Yes'],
    ['§13.20 ErrorRecoveryLevel is the minimum', 'ErrorRecoveryLevel=2', '0'],
    ['§13.2 MaxConnections is the minimum', 'MaxConnections=8', '1'],
    ['§13.1 HeaderDigest takes the first known', 'HeaderDigest=X,CRC32C,None', 'CRC32C'],
    ['§13.1 DataDigest without a known value', 'DataDigest=X,Y', 'Reject'],
    ['§13.23 TaskReporting', 'TaskReporting=FastAbort,ResponseFence,RFC3720', 'ResponseFence'],
    ['§13.24 iSCSIProtocolLevel', 'iSCSIProtocolLevel=1', '1'],
    ['§13.25 OFMarker is rejected', 'OFMarker=No', 'Reject'],
    ['§13.25 IFMarkInt is rejected', 'IFMarkInt=1~2', 'Reject'],
    ['§6.2 an unknown key is not understood', 'X-com.example.key=1', 'NotUnderstood'],
    ['§13.13 a value out of range is rejected', 'MaxBurstLength=511', 'Reject'],
  ])('%s: %s', (_title, offer, answer) => {
    const initiator = new RawInitiator(makeNode({ negotiation: preferences }));
    const pairs = pairsOf(initiator.logIn(offer).data);
    expect(pairs.get(offer.split('=')[0]!)).toBe(answer);
  });

  it('§13.13: keys of data are irrelevant in a discovery session', () => {
    const initiator = new RawInitiator(makeNode());
    const keys = [`InitiatorName=${INITIATOR}`, 'SessionType=Discovery', 'MaxBurstLength=65536'];
    const answer = initiator.login(0x87, text(...keys));
    expect(pairsOf(answer.data).get('MaxBurstLength')).toBe('Irrelevant');
    expect(pairsOf(answer.data).has('TargetPortalGroupTag')).toBe(false);
  });

  it('§13.12: MaxRecvDataSegmentLength is declared by both and answered by none', () => {
    const node = makeNode({ negotiation: { maxRecvDataSegmentLength: 4096 } });
    const initiator = new RawInitiator(node);
    const pairs = pairsOf(initiator.logIn('MaxRecvDataSegmentLength=16384').data);
    expect(pairs.get('MaxRecvDataSegmentLength')).toBe('4096');
    const [session] = node.sessions;
    expect(session?.parameters.initiatorMaxRecvDataSegmentLength).toBe(16384);
  });

  it('§6.2: a key offered twice ends the login', () => {
    const initiator = new RawInitiator(makeNode());
    const keys = text(...names, 'MaxBurstLength=512', 'MaxBurstLength=1024');
    expect(status(initiator.login(0x87, keys))).toEqual([2, 0]);
  });

  it('§13.9: TargetPortalGroupTag stands in the first response', () => {
    const initiator = new RawInitiator(makeNode());
    const pairs = pairsOf(initiator.login(0x00, text(...names, 'AuthMethod=None')).data);
    expect(pairs.get('TargetPortalGroupTag')).toBe('1');
  });

  it('§6.2: requests in parts (C bit) are answered empty until the last', () => {
    const initiator = new RawInitiator(makeNode());
    const keys = text(...names, 'MaxBurstLength=512');
    const first = initiator.login(0x44, keys.subarray(0, 50));
    expect([first.header[1], first.data.length]).toEqual([0x04, 0]);
    const second = initiator.login(0x87, keys.subarray(50));
    expect(second.header[1]).toBe(0x87);
    expect(pairsOf(second.data).get('MaxBurstLength')).toBe('512');
  });

  it('§6.2: answers in parts have C, and T only in the last', () => {
    const initiator = new RawInitiator(makeNode({ faults: { textPieceBytes: 30 } }));
    let answer = initiator.login(0x87, text(...names, 'MaxBurstLength=512'));
    let whole = Buffer.from(answer.data);
    while (answer.header[1]! & 0x40) {
      expect(answer.header[1]! & 0x83).toBe(0);
      expect(answer.data.length).toBe(30);
      answer = initiator.login(0x87, Buffer.alloc(0));
      whole = Buffer.concat([whole, answer.data]);
    }
    expect(answer.header[1]).toBe(0x87);
    expect(pairsOf(whole).get('MaxBurstLength')).toBe('512');
  });
});

describe('login status (RFC 7143 §11.13.5 (Status-Class and Status-Detail))', () => {
  it.each([
    ['0207 without InitiatorName', [`TargetName=${NAME}`], [2, 7]],
    ['0207 without TargetName', [`InitiatorName=${INITIATOR}`], [2, 7]],
    ['0203 for an unknown name', [`InitiatorName=${INITIATOR}`, 'TargetName=iqn.x'], [2, 3]],
    ['0209 for an unknown session type', [...names.slice(0, 2), 'SessionType=Odd'], [2, 9]],
  ])('a login gets status %s', (_title, keys, expected) => {
    const initiator = new RawInitiator(makeNode());
    expect(status(initiator.login(0x87, text(...keys)))).toEqual(expected);
    expect(initiator.closed).toBe('finished');
  });

  it('an unknown TSIH gets status 020a', () => {
    const initiator = new RawInitiator(makeNode());
    expect(status(initiator.login(0x87, text(...names), { tsih: 77 }))).toEqual([2, 10]);
  });

  it('another version gets status 0205, and another PDU than a login 020b', () => {
    const first = new RawInitiator(makeNode());
    const header = first.header(0x43, 0x87);
    header[2] = 1;
    header[3] = 1;
    expect(status(first.send(header, text(...names))[0]!)).toEqual([2, 5]);
    const second = new RawInitiator(makeNode());
    expect(status(second.send(second.header(0x40, 0x80))[0]!)).toEqual([2, 11]);
  });

  it('status 0101 and 0102 redirect with TargetAddress', () => {
    const node = makeNode();
    const target = node.targets.get(NAME)!;
    target.redirect = { address: '192.0.2.9:3260,2' };
    const moved = new RawInitiator(node).login(0x87, text(...names));
    expect(status(moved)).toEqual([1, 1]);
    expect(pairsOf(moved.data).get('TargetAddress')).toBe('192.0.2.9:3260,2');
    target.redirect = { address: '192.0.2.9:3260', permanent: true };
    expect(status(new RawInitiator(node).login(0x87, text(...names)))).toEqual([1, 2]);
  });

  it('a login gets the status of a fault', () => {
    const node = makeNode({ faults: { loginStatus: { class: 3, detail: 1 } } });
    expect(status(new RawInitiator(node).login(0x87, text(...names)))).toEqual([3, 1]);
    expect(node.stats.loginsRefused).toBe(1);
  });
});

describe('RFC 7143 §12.1.3 (Challenge Handshake Authentication Protocol (CHAP))', () => {
  const hashes: [number, string][] = [
    [5, 'md5'],
    [6, 'sha1'],
    [7, 'sha256'],
    [8, 'sha3-256'],
  ];

  function challenged(algorithm: number): { initiator: RawInitiator; id: number; c: Buffer } {
    const initiator = new RawInitiator(makeNode({ chap }));
    const first = initiator.login(0x81, text(...names, 'AuthMethod=CHAP,None'));
    expect(first.header[1]! & 0x80).toBe(0);
    expect(pairsOf(first.data).get('AuthMethod')).toBe('CHAP');
    const second = pairsOf(initiator.login(0x00, text(`CHAP_A=${algorithm}`)).data);
    expect(second.get('CHAP_A')).toBe(String(algorithm));
    const c = Buffer.from(second.get('CHAP_C')!.slice(2), 'hex');
    return { initiator, id: Number(second.get('CHAP_I')), c };
  }

  it.each(hashes)('algorithm %i proves both sides', (algorithm, hash) => {
    const { initiator, id, c } = challenged(algorithm);
    const own = Buffer.from('0123456789abcdef0123456789abcdef', 'hex');
    const proof = text(
      'CHAP_N=joe',
      `CHAP_R=${chapDigest(hash, id, 'a secret of joe', c)}`,
      'CHAP_I=9',
      `CHAP_C=0b${own.toString('base64')}`,
    );
    const answer = initiator.login(0x83, proof);
    expect([answer.header[1], ...status(answer)]).toEqual([0x83, 0, 0]);
    const pairs = pairsOf(answer.data);
    expect(pairs.get('CHAP_N')).toBe('target');
    expect(pairs.get('CHAP_R')).toBe(chapDigest(hash, 9, 'another secret', own));
  });

  it('a wrong response or name gets status 0201', () => {
    const wrong = challenged(7);
    const bad = `CHAP_R=${chapDigest('sha256', wrong.id, 'not it', wrong.c)}`;
    expect(status(wrong.initiator.login(0x83, text('CHAP_N=joe', bad)))).toEqual([2, 1]);
    const name = challenged(7);
    const good = `CHAP_R=${chapDigest('sha256', name.id, chap.secret, name.c)}`;
    expect(status(name.initiator.login(0x83, text('CHAP_N=jim', good)))).toEqual([2, 1]);
  });

  it('a challenge sent back to its maker is rejected', () => {
    const { initiator, id, c } = challenged(5);
    const proof = text(
      'CHAP_N=joe',
      `CHAP_R=${chapDigest('md5', id, chap.secret, c)}`,
      'CHAP_I=9',
      `CHAP_C=0x${c.toString('hex')}`,
    );
    expect(status(initiator.login(0x83, proof))).toEqual([2, 1]);
  });

  it('the security stage cannot be skipped', () => {
    const node = makeNode({ chap });
    expect(status(new RawInitiator(node).login(0x87, text(...names)))).toEqual([2, 1]);
    const none = new RawInitiator(node);
    expect(status(none.login(0x81, text(...names, 'AuthMethod=None')))).toEqual([2, 1]);
  });
});

describe('sessions', () => {
  it('RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout): a login with the same ISID and TSIH 0 ends the old session', () => {
    const node = makeNode();
    const old = new RawInitiator(node);
    const first = old.logIn().header.readUInt16BE(14);
    const second = new RawInitiator(node).logIn().header.readUInt16BE(14);
    expect(second).not.toBe(first);
    expect(old.closed).toBe('dropped');
    expect([node.stats.reinstatements, node.stats.currentSessions]).toEqual([1, 1]);
  });

  it('another ISID is another session', () => {
    const node = makeNode();
    const old = new RawInitiator(node);
    old.logIn();
    const other = new RawInitiator(node);
    other.isid = '400001370001';
    other.logIn();
    expect([old.closed, node.stats.currentSessions]).toEqual([null, 2]);
  });

  it('RFC 7143 §11.12.6 (TSIH): a second connection joins by it while MaxConnections allows', () => {
    const node = makeNode({ negotiation: { maxConnections: 2 } });
    const tsih = new RawInitiator(node).logIn('MaxConnections=2').header.readUInt16BE(14);
    const join = (cid: number): number[] => {
      return status(new RawInitiator(node).login(0x87, text(...names), { tsih, cid }));
    };
    expect([join(1), join(2)]).toEqual([
      [0, 0],
      [2, 6],
    ]);
    expect(node.sessions[0]?.connections.size).toBe(2);
  });

  it('RFC 7143 §11.14 (Logout Request): a logout closes the session and its reason is counted', () => {
    const node = makeNode();
    const initiator = new RawInitiator(node);
    initiator.logIn();
    expect(initiator.logout(0).header[2]).toBe(0);
    expect(initiator.closed).toBe('finished');
    expect(node.stats.logoutReasons).toEqual([0]);
    expect(node.stats.currentSessions).toBe(0);
  });
});

describe('SendTargets (RFC 7143 Appendix C)', () => {
  function discover(node: TargetNode, value: string): { answer: string; pieces: number } {
    const initiator = new RawInitiator(node);
    const keys = [`InitiatorName=${INITIATOR}`, 'SessionType=Discovery'];
    initiator.login(0x87, text(...keys));
    let ttt = 0xffffffff;
    let answer = '';
    for (let pieces = 1; ; pieces += 1) {
      const header = initiator.header(0x04, 0x80);
      header.writeUInt32BE(ttt, 20);
      initiator.cmdSN += 1;
      const body = pieces === 1 ? text(`SendTargets=${value}`) : Buffer.alloc(0);
      const [pdu] = initiator.send(header, body);
      answer += pdu!.data.toString();
      ttt = pdu!.header.readUInt32BE(20);
      if (pdu!.header[1]! & 0x80) {
        expect(ttt).toBe(0xffffffff);
        return { answer, pieces };
      }
      expect(ttt).not.toBe(0xffffffff);
    }
  }

  it('a response lists every target with every portal', () => {
    const node = makeNode();
    node.addTarget({
      name: 'iqn.2024-01.example:two',
      luns: {},
      portals: [
        { address: '192.0.2.1', port: 3260, portalGroupTag: 1 },
        { address: '2001:db8::1', port: 3261, portalGroupTag: 2 },
      ],
    });
    expect(discover(node, 'All').answer).toBe(
      `TargetName=${NAME}\0TargetAddress=127.0.0.1:3260,1\0` +
        'TargetName=iqn.2024-01.example:two\0TargetAddress=192.0.2.1:3260,1\0' +
        'TargetAddress=[2001:db8::1]:3261,2\0',
    );
  });

  it('a long answer comes in parts, each requested with a Target Transfer Tag', () => {
    const node = makeNode();
    for (let index = 0; index < 300; index += 1) {
      node.addTarget({ name: `iqn.2024-01.example:number-${index}`, luns: {} });
    }
    const { answer, pieces } = discover(node, 'All');
    expect(pieces).toBe(Math.ceil(answer.length / 8192));
    expect(answer.match(/TargetName=/g)).toHaveLength(301);
  });
});
