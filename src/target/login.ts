import { ProtocolError } from '../base/errors.js';
import {
  CONTINUE,
  flagsOf,
  INITIATOR_OPCODE,
  loginResponse,
  opcodeOf,
  type Pdu,
  taskTag,
} from './codec.js';
import { SecurityPhase } from './login-security.js';
import { LOGIN_STATUS, LoginEnd, type TargetLoginStatus } from './login-status.js';
import { answerKey, Parameters } from './negotiation.js';
import type { NodeState } from './node-state.js';
import type { Peer, TargetOptions } from './settings.js';
import { cutPieces, encodeKeys, type KeyPair, parseKeys } from './text-keys.js';

const TRANSIT = 0x80;
const STAGE = { security: 0, operational: 1, fullFeature: 3 } as const;
/** Login text of one request at most, over all its pieces. */
const TEXT_BYTES_MAX = 65_536;
/** RFC 7143 §13.12 (MaxRecvDataSegmentLength): the most before a declaration. */
const LOGIN_SEGMENT_BYTES_MAX = 8192;

/** Who logged in, where and how. */
export type LoginIdentity = {
  readonly initiatorName: string;
  readonly isid: Buffer;
  readonly tsih: number;
  readonly connectionId: number;
  /** Null for a discovery session. */
  readonly target: TargetOptions | null;
  readonly portalGroupTag: number;
  readonly cmdSN: number;
};

/** What a request leads to: responses to send, and perhaps the end of the phase. */
type TargetLoginStep = {
  readonly header: Buffer;
  readonly data: Buffer;
  readonly outcome: 'continues' | 'succeeded' | 'refused';
};

/** Gives the session's TSIH when the last response is due; may refuse. */
type Admit = (identity: LoginIdentity, parameters: Parameters) => number;

/** The login phase of one connection (RFC 7143 §6.3 (Login Phase)). */
export class LoginPhase {
  readonly parameters = new Parameters();
  readonly #node: NodeState;
  readonly #peer: Peer;
  readonly #admit: Admit;
  #identity: LoginIdentity | null = null;
  #security: SecurityPhase | null = null;
  #text: Buffer[] = [];
  #textBytes = 0;
  #pieces: Buffer[] = [];
  #piecesFlags = 0;
  #stage: number | null = null;
  #saidOperational = false;
  #offered = new Set<string>();

  constructor(node: NodeState, peer: Peer, admit: Admit) {
    this.#node = node;
    this.#peer = peer;
    this.#admit = admit;
  }

  /** Null when the target does not answer at all. */
  requestArrived(pdu: Pdu): TargetLoginStep | null {
    if (opcodeOf(pdu.header) !== INITIATOR_OPCODE.login) {
      this.#node.stats.violation('a PDU other than Login Request before the full feature phase');
      return this.#refusal(pdu, LOGIN_STATUS.invalidDuringLogin, []);
    }
    try {
      return this.#step(pdu);
    } catch (error) {
      if (error instanceof LoginEnd) return this.#refusal(pdu, error.status, error.keys);
      if (!(error instanceof ProtocolError)) throw error;
      this.#node.stats.violation(error.message);
      return this.#refusal(pdu, LOGIN_STATUS.initiatorError, []);
    }
  }

  #step(pdu: Pdu): TargetLoginStep | null {
    this.#checkHeader(pdu);
    this.#text.push(Buffer.from(pdu.data));
    this.#textBytes += pdu.data.length;
    if (this.#textBytes > TEXT_BYTES_MAX) throw new LoginEnd(LOGIN_STATUS.initiatorError);
    const flags = flagsOf(pdu.header);
    const stage = (flags >> 2) & 3;
    if (flags & CONTINUE) {
      if (flags & TRANSIT) throw new LoginEnd(LOGIN_STATUS.initiatorError);
      return this.#response(pdu, { flags: stage << 2, data: Buffer.alloc(0) });
    }
    if (this.#pieces.length > 0) {
      if (this.#textBytes > 0) throw new LoginEnd(LOGIN_STATUS.initiatorError);
      return this.#nextPiece(pdu);
    }
    const keys = parseKeys(Buffer.concat(this.#text));
    this.#text = [];
    this.#textBytes = 0;
    const answers: KeyPair[] = [];
    if (this.#identity === null) {
      const first = this.#openSession(pdu, keys);
      if (first === 'ignore') return null;
      answers.push(...first);
    }
    return this.#negotiate(pdu, keys, answers);
  }

  /** RFC 7143 §11.12 (Login Request): version 0, stages in order, nothing changes in between. */
  #checkHeader(pdu: Pdu): void {
    const header = pdu.header;
    if ((header[3] ?? 0) > 0) throw new LoginEnd(LOGIN_STATUS.unsupportedVersion);
    const flags = flagsOf(header);
    const stage = (flags >> 2) & 3;
    if (stage !== STAGE.security && stage !== STAGE.operational) {
      throw new LoginEnd(LOGIN_STATUS.initiatorError);
    }
    if (this.#stage !== null && stage !== this.#stage) {
      throw new LoginEnd(LOGIN_STATUS.initiatorError);
    }
    this.#stage = stage;
    const identity = this.#identity;
    if (identity === null) return;
    if (
      !identity.isid.equals(header.subarray(8, 14)) ||
      identity.tsih !== header.readUInt16BE(14) ||
      identity.connectionId !== header.readUInt16BE(20)
    ) {
      throw new LoginEnd(LOGIN_STATUS.initiatorError);
    }
  }

  /** What the first request must say (RFC 7143 §6.3.1 (Login Phase Start)). */
  #openSession(pdu: Pdu, keys: readonly KeyPair[]): KeyPair[] | 'ignore' {
    const said = new Map(keys);
    const header = pdu.header;
    const initiatorName = said.get('InitiatorName');
    const targetName = said.get('TargetName');
    const sessionType = said.get('SessionType') ?? 'Normal';
    if (initiatorName === undefined) throw new LoginEnd(LOGIN_STATUS.missingParameter);
    const isid = Buffer.from(header.subarray(8, 14));
    const tsih = header.readUInt16BE(14);
    const { faults } = this.#node;
    if (faults.loginStatus) throw new LoginEnd(faults.loginStatus);
    const verdict = faults.onLogin?.({
      initiatorName,
      targetName: targetName ?? '',
      isid: isid.toString('hex'),
      tsih,
    });
    if (verdict === 'ignore') return 'ignore';
    if (verdict) throw new LoginEnd(verdict);
    const target = this.#findTarget(sessionType, targetName);
    const portalGroupTag = target === null ? 0 : this.#node.portalGroupTag(target, this.#peer);
    this.#identity = {
      initiatorName,
      isid,
      tsih,
      connectionId: header.readUInt16BE(20),
      target,
      portalGroupTag,
      cmdSN: header.readUInt32BE(24),
    };
    const chap = target === null ? this.#node.discoveryChap : target.chap;
    this.#security = new SecurityPhase(chap, (length) => this.#node.challenge(length));
    if (target === null) return [];
    const alias: KeyPair[] = target.alias === undefined ? [] : [['TargetAlias', target.alias]];
    return [...alias, ['TargetPortalGroupTag', String(portalGroupTag)]];
  }

  #findTarget(sessionType: string, targetName: string | undefined): TargetOptions | null {
    if (sessionType === 'Discovery') return null;
    if (sessionType !== 'Normal') throw new LoginEnd(LOGIN_STATUS.sessionTypeNotSupported);
    if (targetName === undefined) throw new LoginEnd(LOGIN_STATUS.missingParameter);
    const target = this.#node.targets.get(targetName);
    if (target === undefined) throw new LoginEnd(LOGIN_STATUS.notFound);
    if (target.redirect !== undefined) {
      const { permanent, address } = target.redirect;
      throw new LoginEnd(
        permanent ? LOGIN_STATUS.movedPermanently : LOGIN_STATUS.movedTemporarily,
        [['TargetAddress', address]],
      );
    }
    return target;
  }

  #negotiate(pdu: Pdu, keys: readonly KeyPair[], answers: KeyPair[]): TargetLoginStep {
    const identity = this.#identity;
    const security = this.#security;
    if (identity === null || security === null) throw new LoginEnd(LOGIN_STATUS.initiatorError);
    const flags = flagsOf(pdu.header);
    const stage = (flags >> 2) & 3;
    if (stage === STAGE.security) answers.push(...security.answer(new Map(keys)));
    else if (!security.isDone) throw new LoginEnd(LOGIN_STATUS.authenticationFailure);
    answers.push(...this.#answerKeys(keys, stage, identity));
    const next = flags & 3;
    const wants = (flags & TRANSIT) !== 0;
    if (wants && (next <= stage || next === 2)) throw new LoginEnd(LOGIN_STATUS.initiatorError);
    const grants = wants && security.isDone;
    const changed = this.#node.faults.onLoginKeys?.(answers, stage) ?? answers;
    const most = this.#node.faults.textPieceBytes ?? LOGIN_SEGMENT_BYTES_MAX;
    this.#pieces = cutPieces(encodeKeys(changed), Math.min(most, LOGIN_SEGMENT_BYTES_MAX));
    this.#piecesFlags = (stage << 2) | (grants ? TRANSIT | next : 0);
    return this.#nextPiece(pdu);
  }

  #answerKeys(keys: readonly KeyPair[], stage: number, identity: LoginIdentity): KeyPair[] {
    const answers: KeyPair[] = [];
    for (const pair of keys) {
      const [key] = pair;
      if (NOT_NEGOTIATED.has(key) || key.startsWith('CHAP_')) continue;
      if (this.#offered.has(key)) throw new LoginEnd(LOGIN_STATUS.initiatorError);
      this.#offered.add(key);
      const answer = answerKey(pair, {
        settings: this.#node.negotiation,
        parameters: this.parameters,
        discovery: identity.target === null,
      });
      if (answer !== null) answers.push([key, answer]);
    }
    if (stage === STAGE.operational && !this.#saidOperational) {
      this.#saidOperational = true;
      const own = this.#node.negotiation.maxRecvDataSegmentLength;
      answers.push(['MaxRecvDataSegmentLength', String(own)]);
    }
    return answers;
  }

  /** The next piece; T and NSG stand only in the last (RFC 7143 §6.2 (Text Mode Negotiation)). */
  #nextPiece(pdu: Pdu): TargetLoginStep {
    const data = this.#pieces.shift() ?? Buffer.alloc(0);
    if (this.#pieces.length > 0) {
      return this.#response(pdu, { flags: (this.#piecesFlags & 0x0c) | CONTINUE, data });
    }
    if (this.#piecesFlags & TRANSIT) this.#stage = this.#piecesFlags & 3;
    return this.#response(pdu, { flags: this.#piecesFlags, data });
  }

  #response(pdu: Pdu, what: { readonly flags: number; readonly data: Buffer }): TargetLoginStep {
    const done = (what.flags & TRANSIT) !== 0 && (what.flags & 3) === STAGE.fullFeature;
    let tsih = pdu.header.readUInt16BE(14);
    if (done && this.#identity !== null) tsih = this.#admit(this.#identity, this.parameters);
    const header = loginResponse({
      flags: what.flags,
      isid: pdu.header.subarray(8, 14),
      tsih,
      initiatorTaskTag: taskTag(pdu.header),
      statusClass: 0,
      statusDetail: 0,
    });
    return { header, data: what.data, outcome: done ? 'succeeded' : 'continues' };
  }

  #refusal(pdu: Pdu, status: TargetLoginStatus, keys: readonly KeyPair[]): TargetLoginStep {
    const header = loginResponse({
      flags: flagsOf(pdu.header) & 0x0c,
      isid: pdu.header.subarray(8, 14),
      tsih: pdu.header.readUInt16BE(14),
      initiatorTaskTag: taskTag(pdu.header),
      statusClass: status.class,
      statusDetail: status.detail,
    });
    return { header, data: encodeKeys(keys), outcome: 'refused' };
  }
}

/** Declared by the initiator, or answered by the security stage. */
const NOT_NEGOTIATED = new Set([
  'InitiatorName',
  'InitiatorAlias',
  'TargetName',
  'SessionType',
  'AuthMethod',
]);
