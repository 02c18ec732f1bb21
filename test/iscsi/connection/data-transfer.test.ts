import { describe, expect, it } from 'vitest';
import { type Digests, FROM, type InitiatorPdu, NO_TAG, OP } from '../../helpers/peer-pdu.js';
import { type Config, patternOf, ScriptedPeer } from '../../helpers/scripted-peer.js';

const F = 0x80;
const LUN1 = [0x00010000, 0] as const;
const KIB = 1024;

type Keys = Readonly<Record<string, string>>;

/** A write of `length` bytes to a target with these keys: everything sent without an R2T. */
function write(length: number, keys: Keys = {}, config: Config = {}) {
  const peer = ScriptedPeer.loggedIn(config, { keys: { InitialR2T: 'No', ...keys } });
  const command = peer.submit('write', length, { operation: 0x2a });
  const [request, ...dataOuts] = peer.sent();
  return { peer, command, request: request!, dataOuts };
}

/** Header facts of a Data-Out: buffer offset, length, DataSN, F bit. */
const shape = (pdus: readonly InitiatorPdu[]) =>
  pdus.map((pdu) => [pdu.word40, pdu.data.length, pdu.word36, (pdu.flags & F) !== 0]);

const r2t = (
  itt: number,
  fields: { at: number; length: number; number?: number; ttt?: number },
) => ({
  opcode: OP.r2t,
  itt,
  ttt: fields.ttt ?? 0x77,
  lun: LUN1,
  word36: fields.number ?? 0,
  word40: fields.at,
  word44: fields.length,
});

describe('RFC 7143 §4.2.5.2 (Data Transfer Overview)', () => {
  it('unsolicited data are immediate data and Data-Out together, up to the whole FirstBurstLength', () => {
    const { request, dataOuts, peer } = write(100 * KIB, { MaxRecvDataSegmentLength: '32768' });
    expect(request.data).toHaveLength(32 * KIB);
    expect(request.flags & F).toBe(0);
    expect(shape(dataOuts)).toEqual([[32 * KIB, 32 * KIB, 0, true]]);
    expect(Buffer.concat([request.data, dataOuts[0]!.data])).toEqual(
      patternOf(100 * KIB).subarray(0, 64 * KIB),
    );
    expect([dataOuts[0]!.itt, dataOuts[0]!.word20]).toEqual([request.itt, NO_TAG]);
    expect(peer.session.state).toBe('loggedIn');
  });

  it('unsolicited data are the whole transfer if that is shorter', () => {
    const { request, dataOuts } = write(20_000);
    expect(request.data).toHaveLength(8192);
    expect(shape(dataOuts)).toEqual([
      [8192, 8192, 0, false],
      [16384, 3616, 1, true],
    ]);
  });

  it('unsolicited data fit into the command if they can, which then has the F bit', () => {
    const { request, dataOuts } = write(4096);
    expect([request.data.length, request.flags & F, dataOuts.length]).toEqual([4096, F, 0]);
    expect(request.word20).toBe(4096);
  });

  it('unsolicited data are immediate data alone with InitialR2T=Yes', () => {
    const { request, dataOuts } = write(100 * KIB, { InitialR2T: 'Yes' });
    expect([request.data.length, request.flags & F, dataOuts.length]).toEqual([8192, F, 0]);
  });

  it('unsolicited data are Data-Out alone with ImmediateData=No', () => {
    const { request, dataOuts } = write(10_000, { ImmediateData: 'No' });
    expect([request.data.length, request.flags & F]).toEqual([0, 0]);
    expect(shape(dataOuts)).toEqual([
      [0, 8192, 0, false],
      [8192, 1808, 1, true],
    ]);
  });

  it('no data are unsolicited with InitialR2T=Yes and ImmediateData=No', () => {
    const { request, dataOuts } = write(10_000, { InitialR2T: 'Yes', ImmediateData: 'No' });
    expect([request.data.length, request.flags & F, dataOuts.length]).toEqual([0, F, 0]);
  });

  it('§13.14 (FirstBurstLength): immediate data are bounded by it too', () => {
    const { request, dataOuts } = write(8192, { FirstBurstLength: '512' });
    expect([request.data.length, request.flags & F, dataOuts.length]).toEqual([512, F, 0]);
  });

  it('unsolicited Data-Out come in the order of the commands', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { InitialR2T: 'No', ImmediateData: 'No' } });
    peer.submit('write', 512, { seed: 1 });
    peer.submit('write', 512, { seed: 2 });
    const pdus = peer.sent();
    expect(pdus.map((pdu) => pdu.opcode)).toEqual([
      FROM.scsiCommand,
      FROM.dataOut,
      FROM.scsiCommand,
      FROM.dataOut,
    ]);
    expect(pdus[1]!.itt).toBe(pdus[0]!.itt);
    expect(pdus[3]!.data).toEqual(patternOf(512, 2));
  });

  it('§13.12 (MaxRecvDataSegmentLength): no PDU is longer than the target declared', () => {
    const { request, dataOuts } = write(3000, { MaxRecvDataSegmentLength: '512' });
    expect(request.data).toHaveLength(512);
    expect(dataOuts.map((pdu) => pdu.data.length)).toEqual([512, 512, 512, 512, 440]);
  });

  it('§11.7.7 (DataSegmentLength): segments that do not end a sequence are whole words', () => {
    const { dataOuts } = write(2000, { MaxRecvDataSegmentLength: '514' });
    expect(dataOuts.map((pdu) => pdu.data.length)).toEqual([512, 512, 462]);
    expect(dataOuts.map((pdu) => pdu.padding.length)).toEqual([0, 0, 2]);
    const bytes = Buffer.concat(dataOuts.map((pdu) => pdu.data));
    expect(bytes).toEqual(patternOf(2000).subarray(2000 - bytes.length));
  });

  it('§11.2.4 (Data Segment): data are padded with zeros to 4 bytes', () => {
    const { request } = write(513);
    expect(request.padding).toEqual(Buffer.alloc(3));
  });
});

describe('RFC 7143 §11.8 (Ready To Transfer (R2T))', () => {
  const solicited = (length: number, keys: Keys = {}) =>
    write(length, { InitialR2T: 'Yes', ImmediateData: 'No', ...keys });

  it('an R2T is answered with its Target Transfer Tag and LUN, F on the last PDU', () => {
    const { peer, request } = solicited(20_000);
    peer.send(r2t(request.itt, { at: 0, length: 20_000, ttt: 0x1234 }));
    const dataOuts = peer.sent();
    expect(shape(dataOuts)).toEqual([
      [0, 8192, 0, false],
      [8192, 8192, 1, false],
      [16384, 3616, 2, true],
    ]);
    for (const pdu of dataOuts) {
      expect([pdu.word20, pdu.lun, pdu.itt]).toEqual([0x1234, LUN1, request.itt]);
    }
    expect(Buffer.concat(dataOuts.map((pdu) => pdu.data))).toEqual(patternOf(20_000));
  });

  it('§11.7.5 (DataSN): DataSN starts at 0 for each R2T', () => {
    const { peer, request } = solicited(20_000);
    peer.send(r2t(request.itt, { at: 0, length: 10_000 }));
    peer.sent();
    peer.send(r2t(request.itt, { at: 10_000, length: 10_000, number: 1 }));
    expect(shape(peer.sent())).toEqual([
      [10_000, 8192, 0, false],
      [18_192, 1808, 1, true],
    ]);
  });

  it('§13.17 (MaxOutstandingR2T): several R2Ts at once are fulfilled in the order of arrival', () => {
    const { peer, request } = solicited(12_000, { MaxOutstandingR2T: '3' });
    peer.send(
      r2t(request.itt, { at: 0, length: 4000, ttt: 1 }),
      r2t(request.itt, { at: 4000, length: 4000, number: 1, ttt: 2 }),
      r2t(request.itt, { at: 8000, length: 4000, number: 2, ttt: 3 }),
    );
    expect(peer.sent().map((pdu) => [pdu.word20, pdu.word40, pdu.data.length])).toEqual([
      [1, 0, 4000],
      [2, 4000, 4000],
      [3, 8000, 4000],
    ]);
  });

  it('the data of an R2T continue after the immediate data', () => {
    const { peer, request } = write(10_000, { InitialR2T: 'Yes' });
    peer.send(r2t(request.itt, { at: 8192, length: 1808 }));
    expect(shape(peer.sent())).toEqual([[8192, 1808, 0, true]]);
  });

  it('an R2T for a task that has ended is dropped', () => {
    const { peer, request } = solicited(512);
    peer.respond(request);
    peer.send(r2t(request.itt, { at: 0, length: 512 }));
    expect([peer.sent(), peer.session.state]).toEqual([[], 'loggedIn']);
  });

  it.each([
    ['that asks for no data', { at: 0, length: 0 }],
    ['over the end of the transfer', { at: 9000, length: 1001 }],
    ['outside the transfer', { at: 0xffffff00, length: 512 }],
    ['at an offset that is not next', { at: 512, length: 512 }],
    ['with the reserved Target Transfer Tag', { at: 0, length: 512, ttt: NO_TAG }],
  ])('an R2T %s ends the connection', (_what, fields) => {
    const { peer, request } = solicited(10_000, { MaxBurstLength: '8192' });
    peer.send(r2t(request.itt, fields));
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL', section: '11.8' });
    expect(peer.session.state).toBe('reconnecting');
  });

  it('§13.19 (DataSequenceInOrder): an R2T for bytes that were requested before ends the connection', () => {
    const { peer, request } = solicited(10_000);
    peer.send(r2t(request.itt, { at: 0, length: 5000 }));
    peer.sent();
    peer.send(r2t(request.itt, { at: 0, length: 5000, number: 1 }));
    expect(peer.failure).toMatchObject({ section: '11.8' });
  });

  it('§11.8.1 (TotalAHSLength and DataSegmentLength): an R2T with data ends the connection', () => {
    const { peer, request } = solicited(10_000);
    peer.send({ ...r2t(request.itt, { at: 0, length: 512 }), data: Buffer.alloc(4) });
    expect(peer.failure).toMatchObject({ section: '11.8' });
  });

  it('an R2T for a read ends the connection', () => {
    const peer = ScriptedPeer.loggedIn();
    peer.submit('read', 512);
    peer.send(r2t(peer.sentOne(FROM.scsiCommand).itt, { at: 0, length: 512 }));
    expect(peer.failure).toMatchObject({ section: '11.8' });
  });
});

/** A read of `length` bytes under way. */
function read(length: number, config: Config = {}) {
  const peer = ScriptedPeer.loggedIn(config);
  const command = peer.submit('read', length);
  const request = peer.sentOne(FROM.scsiCommand);
  return { peer, command, request };
}

describe('RFC 7143 §11.7 (SCSI Data-Out and SCSI Data-In)', () => {
  const bytes = patternOf(10_000, 3);
  const dataIn = (itt: number, at: number, length: number, number: number, flags = 0) => ({
    opcode: OP.dataIn,
    itt,
    flags,
    word36: number,
    word40: at,
    data: bytes.subarray(at, at + length),
  });

  it('Data-In in any legal cut fill the read, also with empty segments and several sequences', () => {
    const { peer, command, request } = read(10_000);
    const { itt } = request;
    peer.send(
      dataIn(itt, 0, 1, 0),
      dataIn(itt, 1, 0, 1),
      dataIn(itt, 1, 4999, 2, F),
      dataIn(itt, 5000, 4997, 3),
      dataIn(itt, 9997, 3, 4, F),
    );
    peer.respond(request, { word36: 5 });
    expect(command).toMatchObject({ outcome: 'answered', status: 0, residual: 0 });
    expect(command.dataIn.toBuffer()).toEqual(bytes);
  });

  it('§11.7.3 (Flags (Byte 1)): status may come with the last Data-In and no SCSI Response', () => {
    const { peer, command, request } = read(10_000);
    peer.send(dataIn(request.itt, 0, 5000, 0), dataIn(request.itt, 5000, 5000, 1, F | 1));
    expect(command).toMatchObject({ outcome: 'answered', status: 0 });
    expect(command.dataIn.toBuffer()).toEqual(bytes);
    peer.submit('none');
    expect(peer.sentOne(FROM.scsiCommand).expStatSN).toBe(peer.statSN);
  });

  it('a residual underflow comes with the status of a Data-In', () => {
    const { peer, command, request } = read(10_000);
    peer.send({ ...dataIn(request.itt, 0, 4000, 0, F | 1 | 2), word44: 6000 });
    expect(command).toMatchObject({ outcome: 'answered', status: 0, residual: 6000 });
    expect(command.dataIn.byteLength).toBe(4000);
  });

  it('§11.7.2 (A (Acknowledge) Bit): the A bit is ignored at ErrorRecoveryLevel 0', () => {
    const { peer, command, request } = read(1000);
    peer.send({ ...dataIn(request.itt, 0, 1000, 0, F | 0x40 | 1), ttt: 4, lun: LUN1 });
    expect(command.outcome).toBe('answered');
    expect(peer.sent()).toEqual([]);
  });

  it.each([
    ['a DataSN that is not next (§7.9 (Sequence Errors))', { word36: 1 }],
    ['an offset that is not next', { word40: 4 }],
    ['bytes over the end of the transfer', { data: Buffer.alloc(10_004) }],
  ])('a Data-In with %s ends the connection', (_what, fields) => {
    const { peer, command, request } = read(10_000);
    peer.send({ ...dataIn(request.itt, 0, 100, 0), ...fields });
    expect(peer.failure).toMatchObject({ code: 'ERR_PROTOCOL' });
    expect(peer.session.state).toBe('reconnecting');
    expect(command.outcome).toBe('lost');
    expect(command.dataIn.byteLength).toBeLessThanOrEqual(10_000);
  });

  it('a Data-In for a write ends the connection', () => {
    const { peer, request } = write(512, { ImmediateData: 'No', InitialR2T: 'Yes' });
    peer.send(dataIn(request.itt, 0, 512, 0));
    expect(peer.failure).toMatchObject({ section: '11.7' });
  });

  it('a Data-In with an unknown tag is dropped and reaches no buffer', () => {
    const { peer, command, request } = read(512);
    peer.send({ ...dataIn(request.itt ^ 0x1000, 0, 512, 0), data: Buffer.alloc(512, 0xbb) });
    expect([peer.session.state, command.dataIn.byteLength]).toEqual(['loggedIn', 0]);
  });

  it('§13.12 (MaxRecvDataSegmentLength): a segment over what we declared ends the connection', () => {
    const { peer, request } = read(10_000, { offer: { maxRecvDataSegmentLength: 4096 } });
    peer.send(dataIn(request.itt, 0, 4097, 0));
    expect(peer.failure).toMatchObject({ section: '13.12' });
  });
});

describe('RFC 7143 §11.4 (SCSI Response)', () => {
  const sense = Buffer.from('0012700003000000000a00000000110000000000', 'hex');

  it('§11.4.7.2 (Sense Data): sense data come with their length before them', () => {
    const { peer, command, request } = read(512);
    peer.respond(request, { byte3: 2, data: sense, flags: F | 2, word44: 512 });
    expect(command).toMatchObject({
      outcome: 'answered',
      status: 2,
      senseLength: 18,
      residual: 512,
    });
    expect(command.sense.subarray(0, 18)).toEqual(sense.subarray(2));
  });

  it('a SenseLength beyond the data is cut to what came', () => {
    const { peer, command, request } = read(512);
    peer.respond(request, { byte3: 2, data: Buffer.concat([Buffer.of(0xff, 0xff), sense]) });
    expect(command.senseLength).toBe(20);
  });

  it('§11.4.5 (Residual Count): an overflow is reported as the bytes that did not fit', () => {
    const { peer, command, request } = read(512);
    peer.respond(request, { flags: F | 4, word44: 100 });
    expect(command).toMatchObject({ outcome: 'answered', status: 0, residual: -100 });
  });

  it('§11.4.3 (Response): with a response other than 0 the status means nothing', () => {
    const { peer, command, request } = read(512);
    peer.respond(request, { byte2: 1, byte3: 2 });
    expect(command).toMatchObject({ outcome: 'failed', response: 1, status: 0 });
    expect(peer.session.state).toBe('loggedIn');
  });

  it('§11.4.8 (ExpDataSN): an ExpDataSN above the count of Data-In shows that some are missing', () => {
    const { peer, request } = read(512);
    peer.respond(request, { word36: 1 });
    expect(peer.failure).toMatchObject({ section: '7.9' });
  });
});

describe('RFC 7143 §11.2.3 (Header Digest and Data Digest)', () => {
  const digests: [string, Digests][] = [
    ['headers', { header: true, data: false }],
    ['data', { header: false, data: true }],
    ['headers and data', { header: true, data: true }],
  ];

  it.each(digests)('digests of %s are sent and checked after the login', (_what, used) => {
    const on = (is: boolean) => (is ? 'CRC32C' : 'None');
    const keys = { HeaderDigest: on(used.header), DataDigest: on(used.data), InitialR2T: 'No' };
    const peer = ScriptedPeer.loggedIn({}, { keys });
    peer.submit('write', 9999);
    const [request, ...rest] = peer.sent();
    const sentBytes = Buffer.concat([request!.data, ...rest.map((pdu) => pdu.data)]);
    expect(sentBytes).toEqual(patternOf(9999));
    peer.respond(request!);
    const command = peer.submit('read', 999);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    peer.send({ opcode: OP.dataIn, itt, flags: F | 1, data: patternOf(999, 5) });
    expect(command.dataIn.toBuffer()).toEqual(patternOf(999, 5));
  });

  it('§7.8 (Digest Errors): a wrong header digest ends the connection', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { HeaderDigest: 'CRC32C' } });
    const bytes = peer.encode({ opcode: OP.nopIn });
    bytes[20] = bytes[20]! ^ 1;
    peer.feed(bytes);
    expect(peer.failure).toMatchObject({ code: 'ERR_HEADER_DIGEST', section: '7.8' });
  });

  it('§7.8 (Digest Errors): damaged data are dropped and the command is repeated', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DataDigest: 'CRC32C' } });
    const command = peer.submit('read', 1024);
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const bytes = peer.encode({ opcode: OP.dataIn, itt, flags: 0, data: patternOf(512) });
    bytes[100] = bytes[100]! ^ 1;
    peer.feed(bytes);
    expect(command.outcome).toBe('pending');
    const data = patternOf(1024).subarray(512);
    peer.send({ opcode: OP.dataIn, itt, flags: F | 1, word36: 1, word40: 512, data });
    expect(command.outcome).toBe('lost');
    expect(peer.session.state).toBe('loggedIn');
  });

  it('§7.8 (Digest Errors): other PDUs with damaged data end the connection', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DataDigest: 'CRC32C' } });
    const command = peer.submit('none');
    const { itt } = peer.sentOne(FROM.scsiCommand);
    const data = Buffer.from('0002ffff', 'hex');
    const bytes = peer.encode({ opcode: OP.scsiResponse, itt, byte3: 2, data });
    bytes[50] = 0;
    peer.feed(bytes);
    expect(peer.failure).toMatchObject({ code: 'ERR_DATA_DIGEST' });
    expect(command.outcome).toBe('lost');
  });

  it('a path that damages all data ends the connection', () => {
    const peer = ScriptedPeer.loggedIn({}, { keys: { DataDigest: 'CRC32C' } });
    for (let count = 0; count < 17; count += 1) {
      peer.submit('read', 512);
      const { itt } = peer.sentOne(FROM.scsiCommand);
      const bytes = peer.encode({ opcode: OP.dataIn, itt, flags: F | 1, data: patternOf(512) });
      bytes[100] = bytes[100]! ^ 1;
      peer.feed(bytes);
    }
    expect(peer.failure).toMatchObject({ code: 'ERR_DATA_DIGEST' });
  });
});
