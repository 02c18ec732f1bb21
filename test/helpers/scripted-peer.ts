/** A target that answers what a test tells it to, driving a Session in memory on a virtual clock. */
import { LinkError } from '../../src/base/errors.js';
import { Fragments } from '../../src/base/fragments.js';
import { SLAB_BYTES, SlabPool } from '../../src/base/slab.js';
import { Session } from '../../src/iscsi/session/session.js';
import type { SessionConfig } from '../../src/iscsi/session/session-config.js';
import type { SessionEffect } from '../../src/iscsi/session/session-effect.js';
import { ScsiCommand } from '../../src/scsi/command.js';
import {
  type Digests,
  decodePdus,
  encodePdu,
  FROM,
  type InitiatorPdu,
  type Lun,
  linesOf,
  NO_DIGESTS,
  OP,
  operationalAnswer,
  type TargetPdu,
  textOf,
} from './peer-pdu.js';

export const ISID = Buffer.of(0x80, 0x12, 0x34, 0x56, 0x00, 0x01);
export const PORTALS = [
  { host: '192.0.2.1', port: 3260 },
  { host: '192.0.2.2', port: 3260 },
];
const FEED_BYTES_MAX = SLAB_BYTES;

export type Config = {
  readonly portals?: SessionConfig['portals'];
  readonly login?: Partial<SessionConfig['login']>;
  readonly offer?: Partial<SessionConfig['login']['offer']>;
  readonly timers?: Partial<SessionConfig['timers']>;
  readonly type?: SessionConfig['type'];
  readonly firstLogin?: SessionConfig['firstLogin'];
  readonly queueDepthMax?: number;
  readonly portalGroupTag?: number;
};

export function sessionConfig(config: Config = {}): SessionConfig {
  return {
    type: config.type ?? 'data',
    portals: config.portals ?? PORTALS.slice(0, 1),
    queueDepthMax: config.queueDepthMax ?? 32,
    firstLogin: config.firstLogin ?? 'forever',
    timers: {
      reconnectIntervalMs: 5000,
      loginTimeoutMs: 15000,
      noopIntervalMs: 5000,
      noopTimeoutMs: 5000,
      taskTimeoutMs: 60000,
      abortTimeoutMs: 15000,
      logicalUnitResetTimeoutMs: 30000,
      logoutTimeoutMs: 3000,
      ...config.timers,
    },
    login: {
      initiatorName: 'iqn.1999-07.com.os:hostid.77',
      ...(config.type === 'discovery'
        ? {}
        : { targetName: 'iqn.1999-07.com.example:diskarray.sn.88' }),
      offer: {
        headerDigest: ['None', 'CRC32C'],
        dataDigest: ['None', 'CRC32C'],
        maxConnections: 1,
        initialR2T: false,
        immediateData: true,
        maxRecvDataSegmentLength: 65536,
        maxBurstLength: 262144,
        firstBurstLength: 65536,
        maxOutstandingR2T: 4,
        defaultTime2Wait: 0,
        defaultTime2Retain: 0,
        errorRecoveryLevel: 0,
        ...config.offer,
      },
      randomBytes: (count) => Buffer.alloc(count, 0x5a),
      ...config.login,
    },
  };
}

export type LoginAnswers = {
  readonly keys?: Readonly<Record<string, string>>;
  readonly tag?: string | null;
  readonly expCmdSN?: number;
  readonly maxCmdSN?: number;
};

export class ScriptedPeer {
  readonly pool = new SlabPool({ slabsMax: 256 });
  readonly session: Session;
  /** Effects so far; a test empties it. */
  readonly effects: SessionEffect[] = [];
  /** Commands that have an outcome, in order. */
  readonly done: ScsiCommand[] = [];
  nowMs = 1000;
  digests: Digests = NO_DIGESTS;
  /** Numbers the next PDU will carry; `send` counts StatSN for PDUs that do. */
  statSN = 0x20000;
  expCmdSN = 1;
  maxCmdSN = 64;
  linkIsOpen = false;
  #rest: Buffer = Buffer.alloc(0);

  constructor(config: Config = {}) {
    this.session = new Session({
      identity: {
        sessionId: '0011223344556677',
        isid: ISID,
        ...(config.portalGroupTag === undefined ? {} : { portalGroupTag: config.portalGroupTag }),
      },
      config: sessionConfig(config),
      pool: this.pool,
    });
  }

  /** A session that has begun, its link open. */
  static started(config: Config = {}): ScriptedPeer {
    const peer = new ScriptedPeer(config);
    peer.session.start(peer.nowMs);
    peer.settle();
    return peer;
  }

  /** A session that is logged in. */
  static loggedIn(config: Config = {}, answers: LoginAnswers = {}): ScriptedPeer {
    const peer = ScriptedPeer.started(config);
    peer.login(answers);
    return peer;
  }

  /** Takes effects and finished commands; links open at once. */
  settle(): void {
    const { effects, completed } = this.session;
    while (effects.length > 0 || completed.length > 0) {
      for (const effect of effects.splice(0)) {
        this.effects.push(effect);
        if (effect.type === 'closeLink') this.linkIsOpen = false;
        if (effect.type === 'openLink') {
          this.linkIsOpen = true;
          this.digests = NO_DIGESTS;
          this.#rest = Buffer.alloc(0);
          this.session.linkOpened(this.nowMs);
        }
      }
      for (const command of completed.splice(0)) this.session.flow.tell(command, this.nowMs);
    }
  }

  /** PDUs the initiator has sent since the last call. */
  sent(): InitiatorPdu[] {
    const { connection } = this.session;
    if (connection === null) return [];
    const { queue } = connection;
    const parts: Buffer[] = [this.#rest];
    for (let index = 0; index < queue.count; index += 1) {
      const at = ((queue.firstIndex + index) % queue.capacity) * 3;
      const [slab = 0, offset = 0, length = 0] = queue.table.subarray(at, at + 3);
      parts.push(Buffer.from(this.pool.buffer(slab).subarray(offset, offset + length)));
    }
    queue.sent(queue.byteLength);
    const { pdus, rest } = decodePdus(Buffer.concat(parts), this.digests);
    this.#rest = rest;
    return pdus;
  }

  /** As `sent`, for exactly one PDU of that opcode. */
  sentOne(opcode: number): InitiatorPdu {
    const pdus = this.sent();
    const [pdu] = pdus;
    if (pdus.length !== 1 || pdu?.opcode !== opcode) {
      const opcodes = pdus.map((one) => one.opcode.toString(16)).join(', ');
      throw new Error(`sent [${opcodes}] and not one ${opcode.toString(16)}`);
    }
    return pdu;
  }

  /** Raw bytes to the initiator, in one piece or in pieces of `pieceBytes`. */
  feed(bytes: Buffer, pieceBytes = FEED_BYTES_MAX): void {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      const slab = this.pool.acquire();
      const buffer = this.pool.buffer(slab);
      piece.copy(buffer);
      if (this.linkIsOpen) {
        this.session.bytesReceived(slab, buffer, 0, piece.length, this.nowMs);
      }
      // Memory without a reference is used again: stale bytes must not look right.
      if (this.pool.references(slab) === 1) buffer.fill(0xee, 0, piece.length);
      this.pool.release(slab);
      this.settle();
    }
  }

  /** Bytes of one PDU with the numbers of the moment where it gives none. */
  encode(pdu: TargetPdu): Buffer {
    const { expCmdSN, maxCmdSN } = this;
    const isUnsolicitedNopIn = pdu.opcode === OP.nopIn && (pdu.itt ?? 0xffffffff) === 0xffffffff;
    const isPlainDataIn = pdu.opcode === OP.dataIn && ((pdu.flags ?? 0x80) & 1) === 0;
    const statSN = isPlainDataIn ? 0 : this.statSN;
    const isCounted = pdu.opcode !== OP.r2t && !isUnsolicitedNopIn && !isPlainDataIn;
    if (isCounted && pdu.statSN === undefined) this.statSN = (this.statSN + 1) >>> 0;
    return encodePdu({ statSN, expCmdSN, maxCmdSN, ...pdu }, this.digests);
  }

  send(...pdus: readonly TargetPdu[]): void {
    this.feed(Buffer.concat(pdus.map((pdu) => this.encode(pdu))));
  }

  /** Answers the login request that was sent last. */
  answerLogin(
    request: InitiatorPdu,
    answer: Partial<TargetPdu> & { lines?: string[]; isid?: Buffer },
  ): void {
    const { lines, isid = request.header.subarray(8, 14), ...fields } = answer;
    const bytes = this.encode({
      opcode: OP.login,
      flags: request.flags,
      itt: request.itt,
      ttt: 0,
      data: textOf(lines ?? []),
      ...fields,
    });
    isid.copy(bytes, 8);
    if ((fields.flags ?? request.flags) % 4 === 3) bytes.writeUInt16BE(0x100, 14);
    this.feed(bytes);
  }

  /** Runs a login without authentication from its first request on. */
  login(answers: LoginAnswers = {}): InitiatorPdu[] {
    const { tag = '1', keys = {} } = answers;
    const first = this.sentOne(FROM.login);
    this.expCmdSN = answers.expCmdSN ?? first.cmdSN;
    this.maxCmdSN = answers.maxCmdSN ?? this.expCmdSN + 63;
    const tagLine = tag === null ? [] : [`TargetPortalGroupTag=${tag}`];
    this.answerLogin(first, { lines: [...tagLine, 'AuthMethod=None'] });
    if (!this.linkIsOpen) return [first];
    const second = this.sentOne(FROM.login);
    const isNormal = second.data.includes('InitialR2T');
    const answer = isNormal ? operationalAnswer(keys, linesOf(second)) : [];
    const offeredCrc = (name: string) => keys[name] === 'CRC32C';
    this.answerLogin(second, { lines: answer });
    this.digests = { header: offeredCrc('HeaderDigest'), data: offeredCrc('DataDigest') };
    return [first, second];
  }

  /** Submits a command; its bytes, for a write, are `index & 0xff` plus `seed`. */
  submit(direction: 'none' | 'read' | 'write', length = 0, options: CommandOptions = {}) {
    const command = new ScsiCommand(
      { scsiCommandDone: (ended) => this.done.push(ended) },
      new Fragments(this.pool),
    );
    command.prepare(direction, length);
    command.cdb[0] = options.operation ?? 0x28;
    const [upper, lower] = options.lun ?? [0x00010000, 0];
    command.lun = { upper, lower };
    command.isControl = options.isControl ?? false;
    command.onSent = options.onSent ?? null;
    if (direction === 'write') command.dataOut = this.payload(patternOf(length, options.seed));
    this.session.submit(command, this.nowMs);
    this.settle();
    return command;
  }

  /** `bytes` in slabs, in pieces of an odd length. */
  payload(bytes: Buffer): Fragments {
    const fragments = new Fragments(this.pool);
    const pieceBytes = 50_001;
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      const slab = this.pool.acquire();
      piece.copy(this.pool.buffer(slab), 100);
      fragments.append(slab, 100, piece.length);
      this.pool.release(slab);
    }
    return fragments;
  }

  /** SCSI Response with GOOD, or what `fields` say. */
  respond(command: InitiatorPdu, fields: Partial<TargetPdu> = {}): void {
    this.expCmdSN = (command.cmdSN + 1) >>> 0;
    this.maxCmdSN = (this.expCmdSN + 63) >>> 0;
    this.send({ opcode: OP.scsiResponse, itt: command.itt, ttt: 0, ...fields });
  }

  at(nowMs: number): void {
    this.nowMs = nowMs;
    this.session.timeReached(nowMs);
    this.settle();
  }

  loseLink(): void {
    const error = new LinkError('ECONNRESET', 'cut by the test');
    this.session.linkFailed(error, this.nowMs);
    this.settle();
  }

  /** Effects of one type, and forgets them all. */
  take<T extends SessionEffect['type']>(type: T): Extract<SessionEffect, { type: T }>[] {
    const found = this.effects.filter((effect) => effect.type === type);
    this.effects.length = 0;
    return found as Extract<SessionEffect, { type: T }>[];
  }

  /** The error that ended the connection, as the change of state tells it. */
  get failure() {
    for (const effect of [...this.effects].reverse()) {
      if (effect.type === 'stateChanged' && effect.error) return effect.error;
      if (effect.type === 'attemptFailed') return effect.error;
    }
    return null;
  }
}

export type CommandOptions = {
  readonly operation?: number;
  readonly lun?: Lun;
  readonly seed?: number;
  readonly isControl?: boolean;
  readonly onSent?: () => void;
};

export function patternOf(length: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index += 1) bytes[index] = (index * 7 + seed) & 0xff;
  return bytes;
}
