/** Fuzz targets of what an iSCSI target sends: each takes any bytes and throws for a fault of ours. */
import { isForeignFault } from '../../src/base/errors.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { PduEvent, PduReader } from '../../src/iscsi/pdu/pdu-reader.js';
import {
  decodeText,
  encodeText,
  parseBinaryValue,
  parseListOfValues,
  parseNumericalValue,
} from '../../src/iscsi/pdu/text.js';
import { QuirkLog } from '../../src/iscsi/quirks/quirks.js';
import { parseSendTargets } from '../../src/iscsi/session/send-targets.js';
import { decodeReadCapacity10, decodeReadCapacity16 } from '../../src/scsi/capacity.js';
import { inquiryView } from '../../src/scsi/inquiry-view.js';
import { decodeLbaStatus } from '../../src/scsi/lba-status.js';
import { decodeReportLuns } from '../../src/scsi/lun.js';
import { decodeModeSense6, decodeModeSense10 } from '../../src/scsi/mode.js';
import { BusySession } from '../helpers/hostile-stream.js';
import { OP, type TargetPdu } from '../helpers/peer-pdu.js';
import { LoginScript } from '../iscsi/login/login-script.js';
import { ByteReader } from './byte-reader.js';

/** Runs `action`; what it says of the other side's mistakes is right, all else is thrown on. */
function tolerant<T>(action: () => T): T | string {
  try {
    return action();
  } catch (error) {
    if (!isForeignFault(error)) throw error;
    return error.message;
  }
}

/** Made once, for memory costs more than what is tried. */
const pool = new SlabPool({ slabsMax: 4 });

/** The frames of `bytes`, fed in pieces of `pieceBytes`, as one text. */
function framesOf(bytes: Buffer, pieceBytes: number, digests: boolean): string {
  const reader = new PduReader(pool, 8192);
  reader.headerDigest = digests;
  reader.dataDigest = digests;
  const slab = pool.acquire();
  const buffer = pool.buffer(slab);
  bytes.copy(buffer);
  const frames: string[] = [];
  let payload = '';
  const end = tolerant(() => {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      reader.feed(slab, buffer, at, Math.min(at + pieceBytes, bytes.length));
      for (let event = reader.next(); event !== PduEvent.need; event = reader.next()) {
        if (event === PduEvent.header) {
          const { header, headerAt } = reader;
          frames.push(header.toString('hex', headerAt, headerAt + 48));
          payload = '';
        } else if (event === PduEvent.data) {
          payload += buffer.toString('hex', reader.pieceAt, reader.pieceAt + reader.pieceLength);
        } else {
          frames.push(`${payload} ${reader.dataDigestFailed}`);
        }
      }
    }
    return 'end';
  });
  pool.release(slab);
  return [...frames, end].join('\n');
}

/** The PDU reader finds the same in any cut of the stream. */
export function pdu(data: Buffer): void {
  const bytes = data.subarray(1, SLAB_BYTES);
  const digests = ((data[0] ?? 0) & 1) !== 0;
  const whole = framesOf(bytes, SLAB_BYTES, digests);
  for (const pieceBytes of [1, 1 + ((data[0] ?? 0) >> 1)]) {
    if (framesOf(bytes, pieceBytes, digests) !== whole) throw new Error('the cut changes frames');
  }
}

const OPCODES = Object.values(OP);

/** PDUs of a target's choice to a session with two reads and a write under way. */
export function stream(data: Buffer): void {
  const read = new ByteReader(data);
  const busy = new BusySession(false);
  const tags = [...busy.reads.map(({ request }) => request.itt), busy.write.itt, 0xffffffff];
  const word = () => (read.bool() ? read.byte() : read.word());
  for (let count = 0; count < 16 && !read.isAtEnd && busy.peer.linkIsOpen; count += 1) {
    const kind = read.byte();
    const made: TargetPdu = {
      opcode: OPCODES[kind % 16] ?? kind & 0x3f,
      itt: tags[(kind >> 4) & 3] ?? 0,
      lun: kind & 0x40 ? busy.write.lun : ([0, 0] as const),
      flags: read.byte(),
      byte2: read.byte(),
      byte3: read.byte(),
      ttt: word(),
      word36: word(),
      word40: word(),
      word44: word(),
      data: read.bytes(read.byte() * (kind & 0x80 ? 16 : 1)),
    };
    busy.peer.send(made);
  }
  busy.verify({ undamaged: false });
  busy.verifyReleased();
}

/** Text keys: what is read can be written and read again, and values are numbers or nothing. */
export function text(data: Buffer): void {
  tolerant(() => {
    const pairs = decodeText(data, new QuirkLog(() => undefined));
    const again = decodeText(encodeText(pairs), new QuirkLog(() => undefined));
    if (JSON.stringify(again) !== JSON.stringify(pairs)) throw new Error('it is read otherwise');
    for (const [, value] of pairs) {
      const number = parseNumericalValue(value);
      if (number !== null && !(number >= 0 && number <= 2 ** 64)) throw new Error(`${number}`);
      parseListOfValues(value);
      if ((parseBinaryValue(value, 1024)?.length ?? 0) > 1024) throw new Error('too long');
    }
    parseSendTargets(pairs, { host: '192.0.2.1', port: 3260 });
  });
}

const CHAP = {
  user: 'alice',
  secret: Buffer.from('not a secret at all'),
  algorithms: ['MD5', 'SHA256'],
} as const;
const TARGET = { user: 'bob', secret: Buffer.from('another secret') };
/** The configurations of CHAP: none, one way, both ways. */
const SECURITY = [{}, { chap: CHAP }, { chap: { ...CHAP, target: TARGET } }];

/** A target that answers a login in its own way. */
export function login(data: Buffer): void {
  const read = new ByteReader(data);
  const chap = SECURITY[read.byte() % 3] ?? {};
  tolerant(() => {
    const script = new LoginScript(chap);
    for (let count = 0; count < 12 && !read.isAtEnd; count += 1) {
      const flags = read.byte();
      const stages = read.byte();
      const status = read.bool() ? [read.byte(), read.byte()] : [0, 0];
      const length = read.byte() * (flags & 0x20 ? 64 : 2);
      const step = script.answer({
        transit: (flags & 0x80) !== 0,
        continued: (flags & 0x40) !== 0,
        currentStage: stages & 4 ? stages & 3 : script.request.currentStage,
        nextStage: (stages >> 3) & 3,
        tsih: flags & 3,
        statusClass: status[0] ?? 0,
        statusDetail: status[1] ?? 0,
        data: read.bytes(length),
      });
      if (step.type === 'done') {
        verifyParameters(step.parameters);
        return;
      }
      if (step.type !== 'send') return;
    }
  });
}

function verifyParameters(parameters: object): void {
  for (const [key, value] of Object.entries(parameters)) {
    if (typeof value !== 'number') continue;
    const isBounded = Number.isInteger(value) && value >= 0 && value < 2 ** 24;
    if (!isBounded) throw new Error(`${key} is ${value}`);
  }
  const { firstBurstLength = 0, maxBurstLength = 0 } = parameters as Record<string, number>;
  if (firstBurstLength > maxBurstLength) throw new Error('the first burst is the longer one');
}

const DECODERS: readonly ((data: Buffer) => unknown)[] = [
  decodeReadCapacity10,
  decodeReadCapacity16,
  decodeReportLuns,
  decodeModeSense6,
  decodeModeSense10,
  (data) => decodeLbaStatus(data, 0),
  (data) => inquiryView(data, null),
  ...[0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2].map((page) => (data: Buffer) => inquiryView(data, page)),
];

/** What a disk says of itself. */
export function scsi(data: Buffer): void {
  const decode = DECODERS[(data[0] ?? 0) % DECODERS.length];
  tolerant(() => decode?.(data.subarray(1)));
}
