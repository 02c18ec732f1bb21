import { ProtocolError } from '../base/errors.js';
import { serialAdd, serialLess } from '../base/serial32.js';
import {
  asyncMessage,
  cmdSNOf,
  expStatSNOf,
  nopIn,
  opcodeOf,
  type Pdu,
  padding,
  setDataSegmentLength,
  stampNumbers,
  TARGET_NO_TAG,
  TagCounter,
} from './codec.js';
import { digestBytes } from './crc32c.js';
import type { CommandFault } from './faults.js';
import { FrameReader } from './frame-reader.js';
import { pduArrived } from './full-feature.js';
import { type LoginIdentity, LoginPhase } from './login.js';
import { LOGIN_STATUS, LoginEnd } from './login-status.js';
import { Parameters } from './negotiation.js';
import type { NodeState } from './node-state.js';
import { encodeSense, type SenseFacts } from './scsi/sense.js';
import { type ConnectionPort, TargetSession } from './session.js';
import type { Peer } from './settings.js';
import { TargetTextExchange } from './text.js';

const NO_DATA = Buffer.alloc(0);
const NO_LUN = Buffer.alloc(8);

/** How the link ends: after everything sent has left, or at once. */
export type TargetLinkEnd = 'finished' | 'dropped';

type Phase =
  | { readonly kind: 'login'; readonly login: LoginPhase }
  | {
      readonly kind: 'full-feature';
      readonly session: TargetSession;
      readonly text: TargetTextExchange;
    }
  | { readonly kind: 'closed' };

/** Fields of an Asynchronous Message a test may send: RFC 7143 §11.9 (Asynchronous Message). */
type AsyncFields = {
  readonly event: number;
  readonly vendorCode?: number;
  readonly parameters?: readonly [number, number, number];
  readonly lun?: Buffer;
  readonly sense?: SenseFacts;
};

/** One TCP connection as the target sees it. Bytes go in by `receive`, out by `send`. */
export class TargetConnection implements ConnectionPort {
  connectionId = 0;
  parameters = new Parameters();
  readonly #node: NodeState;
  readonly #send: (bytes: Uint8Array) => void;
  readonly #closed: (end: TargetLinkEnd) => void;
  readonly #peer: Peer;
  readonly #reader = new FrameReader();
  readonly #tags = new TagCounter();
  #phase: Phase;
  #statSN: number;
  #loginCmdSN = 0;
  #sendDigests = { header: false, data: false };

  constructor(facts: {
    readonly node: NodeState;
    readonly send: (bytes: Uint8Array) => void;
    readonly closed: (end: TargetLinkEnd) => void;
    readonly peer: Peer;
  }) {
    this.#node = facts.node;
    this.#send = facts.send;
    this.#closed = facts.closed;
    this.#peer = facts.peer;
    this.#statSN = facts.node.initialStatSN;
    const login = new LoginPhase(facts.node, facts.peer, (identity, parameters) =>
      this.#admit(identity, parameters),
    );
    this.#phase = { kind: 'login', login };
    facts.node.stats.connections += 1;
  }

  get isOpen(): boolean {
    return this.#phase.kind !== 'closed';
  }

  get session(): TargetSession | null {
    return this.#phase.kind === 'full-feature' ? this.#phase.session : null;
  }

  /** Takes bytes from the link; the buffer must not change afterwards. */
  receive(bytes: Uint8Array): void {
    if (!this.isOpen) return;
    try {
      this.#reader.push(bytes, (pdu) => {
        this.#pduArrived(pdu);
        return this.isOpen;
      });
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (error.section === '7.8') this.#node.stats.headerDigestErrors += 1;
      this.#node.stats.violation(error.message);
      this.drop();
    }
  }

  /** The link is gone. */
  linkClosed(): void {
    this.#leave();
  }

  drop(): void {
    if (!this.isOpen) return;
    this.#leave();
    this.#closed('dropped');
  }

  finish(): void {
    if (!this.isOpen) return;
    this.#leave();
    this.#closed('finished');
  }

  /** A NOP-In of the target's own; `answerWanted` gives it a Target Transfer Tag. */
  sendNop(answerWanted = true): void {
    const targetTransferTag = answerWanted ? this.#tags.next() : TARGET_NO_TAG;
    this.send(
      nopIn({ lun: NO_LUN, initiatorTaskTag: TARGET_NO_TAG, targetTransferTag }),
      null,
      'shows',
    );
  }

  /** An Asynchronous Message. */
  sendAsync(fields: AsyncFields): void {
    const header = asyncMessage({
      lun: fields.lun ?? NO_LUN,
      event: fields.event,
      vendorCode: fields.vendorCode ?? 0,
      parameters: fields.parameters ?? [0, 0, 0],
    });
    let data = NO_DATA;
    if (fields.sense) {
      const sense = encodeSense(fields.sense);
      data = Buffer.concat([Buffer.from([0, sense.length]), sense]);
    }
    this.send(header, data, 'advances');
  }

  send(header: Buffer, data: Buffer | null, statSN: 'advances' | 'shows' | 'none'): void {
    if (!this.isOpen) return;
    const body = data ?? NO_DATA;
    setDataSegmentLength(header, body.length);
    this.#stamp(header, statSN);
    const spoiled = this.#node.faults.onSend?.(header, body);
    if (spoiled === 'drop') return;
    if (spoiled === 'drop-connection') {
      this.drop();
      return;
    }
    this.#write(header, body, spoiled);
  }

  #stamp(header: Buffer, statSN: 'advances' | 'shows' | 'none'): void {
    const window = this.session?.window;
    const shown = statSN === 'none' ? null : this.#statSN;
    if (statSN === 'advances') this.#statSN = serialAdd(this.#statSN, 1);
    stampNumbers(header, {
      statSN: shown,
      expCmdSN: window?.expCmdSN ?? this.#loginCmdSN,
      maxCmdSN: window?.maxCmdSN ?? this.#loginCmdSN,
    });
  }

  #write(
    header: Buffer,
    data: Buffer,
    spoiled: undefined | 'garbage-header-digest' | 'garbage-data-digest',
  ): void {
    const pad = Buffer.alloc(padding(data.length));
    if (this.#sendDigests.header) {
      const digest = digestBytes(header);
      if (spoiled === 'garbage-header-digest') digest[0] = (digest[0] ?? 0) ^ 0xff;
      this.#send(Buffer.concat([header, digest]));
    } else {
      this.#send(header);
    }
    if (data.length === 0) return;
    this.#send(data);
    if (pad.length > 0) this.#send(pad);
    if (!this.#sendDigests.data) return;
    const digest = digestBytes(data, pad);
    if (spoiled === 'garbage-data-digest') digest[0] = (digest[0] ?? 0) ^ 0xff;
    this.#send(digest);
  }

  #pduArrived(pdu: Pdu): void {
    const phase = this.#phase;
    if (phase.kind === 'login') {
      this.#loginArrived(pdu, phase.login);
      return;
    }
    if (phase.kind === 'closed') return;
    if (serialLess(this.#statSN, expStatSNOf(pdu.header))) {
      const opcode = opcodeOf(pdu.header).toString(16).padStart(2, '0');
      this.#node.stats.violation(`PDU ${opcode}h with an ExpStatSN beyond what was sent`);
    }
    const { session, text } = phase;
    pduArrived(pdu, { node: this.#node, session, connection: this, text, peer: this.#peer });
  }

  #loginArrived(pdu: Pdu, login: LoginPhase): void {
    this.#loginCmdSN = cmdSNOf(pdu.header);
    const step = login.requestArrived(pdu);
    if (step === null) return;
    this.send(step.header, step.data, 'advances');
    if (step.outcome === 'refused') {
      this.#node.stats.loginsRefused += 1;
      this.finish();
      return;
    }
    if (step.outcome === 'continues' || !this.isOpen) return;
    // The digests count from the first PDU after the login (RFC 7143 §6.3 (Login Phase)).
    const header = this.parameters.headerDigest === 'CRC32C';
    const data = this.parameters.dataDigest === 'CRC32C';
    this.#sendDigests = { header, data };
    this.#reader.headerDigest = header;
    this.#reader.dataDigest = data;
    this.#reader.dataSegmentBytesMax = this.#node.negotiation.maxRecvDataSegmentLength;
  }

  /** Joins or makes the session; called when the last login response is about to be sent. */
  #admit(identity: LoginIdentity, parameters: Parameters): number {
    this.connectionId = identity.connectionId;
    this.parameters = parameters;
    parameters.firstBurstLength = Math.min(parameters.firstBurstLength, parameters.maxBurstLength);
    const session = identity.tsih === 0 ? this.#newSession(identity) : this.#join(identity);
    session.connections.set(this.connectionId, this);
    this.#phase = { kind: 'full-feature', session, text: new TargetTextExchange() };
    const { stats } = this.#node;
    if (session.target === null) stats.discoveryLogins += 1;
    else stats.logins += 1;
    return session.tsih;
  }

  /**
   * The old session is over before the new one is: RFC 7143 §6.3.5 (Session Reinstatement,
   * Closure, and Timeout).
   */
  #newSession(identity: LoginIdentity): TargetSession {
    const old = this.#node.findSession(identity);
    if (old !== undefined) {
      this.#node.stats.reinstatements += 1;
      this.#node.endSession(old);
    }
    const session = new TargetSession({
      ...identity,
      tsih: this.#node.nextTsih(),
      parameters: this.parameters,
      firstCmdSN: identity.cmdSN,
      windowSize: this.#node.commandWindow,
    });
    this.#node.addSession(session);
    return session;
  }

  /** A further connection, or one that takes the place of a dead one with its CID. */
  #join(identity: LoginIdentity): TargetSession {
    const session = this.#node.findSession(identity);
    if (session === undefined || session.tsih !== identity.tsih) {
      throw new LoginEnd(LOGIN_STATUS.sessionDoesNotExist);
    }
    const same = session.connections.get(identity.connectionId);
    if (same === undefined && session.connections.size >= session.parameters.maxConnections) {
      throw new LoginEnd(LOGIN_STATUS.tooManyConnections);
    }
    if (same !== undefined) {
      session.connections.delete(identity.connectionId);
      this.#node.stats.tasksKilled += session.endTasks((task) => task.connection === same);
      same.drop();
    }
    return session;
  }

  #leave(): void {
    const phase = this.#phase;
    if (phase.kind === 'closed') return;
    this.#phase = { kind: 'closed' };
    if (phase.kind !== 'full-feature' || phase.session.ended) return;
    const { session } = phase;
    if (session.connections.get(this.connectionId) === this) {
      session.connections.delete(this.connectionId);
    }
    const killed = session.endTasks(
      (task) => task.connection === this && !outlivesLink(task.fault),
    );
    this.#node.stats.tasksKilled += killed;
    if (session.connections.size === 0 && session.tasks.size === 0) this.#node.endSession(session);
  }
}

function outlivesLink(fault: CommandFault): boolean {
  return typeof fault === 'object' && 'delayMs' in fault && fault.outlivesLink === true;
}
