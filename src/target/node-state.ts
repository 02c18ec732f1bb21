import { createHash } from 'node:crypto';
import type { Clock } from '../base/clock.js';
import { invariant } from '../base/errors.js';
import type { Faults } from './faults.js';
import { DEFAULT_NEGOTIATION, type NegotiationSettings } from './negotiation.js';
import type { TargetSession, UnitAttention } from './session.js';
import type {
  ChapSettings,
  Peer,
  PortalOptions,
  PowerOnAttention,
  TargetInput,
  TargetNodeOptions,
  TargetOptions,
} from './settings.js';
import { TargetStats } from './stats.js';

const POWER_ON: UnitAttention = { asc: 0x29, ascq: 0x00 };

/** What all connections of a node share. */
export class NodeState {
  readonly targets = new Map<string, TargetOptions>();
  readonly negotiation: NegotiationSettings;
  readonly faults: Faults;
  readonly stats = new TargetStats();
  readonly sessions = new Set<TargetSession>();
  discoveryChap: ChapSettings | undefined;
  commandWindow: number;
  initialStatSN: number;
  powerOnAttention: PowerOnAttention;
  clock: Clock | undefined;
  randomBytes: ((length: number) => Buffer) | undefined;
  #lastTsih = 0;
  #restarted = false;
  #seenSinceRestart = new Set<string>();
  /** Attentions that were not reported to a nexus outlive its session (SAM-5 §5.14). */
  readonly #known = new Set<string>();
  readonly #pendingOf = new Map<string, ReadonlyMap<number, readonly UnitAttention[]>>();
  #fallbackCount = 0;

  constructor(options: TargetNodeOptions) {
    for (const target of options.targets) this.addTarget(target);
    this.negotiation = { ...DEFAULT_NEGOTIATION, ...options.negotiation };
    this.faults = options.faults ?? {};
    this.discoveryChap = options.discoveryChap;
    this.commandWindow = options.commandWindow ?? 128;
    this.initialStatSN = options.initialStatSN ?? 1;
    this.powerOnAttention = options.powerOnAttention ?? 'after-restart';
    this.clock = options.clock;
    this.randomBytes = options.randomBytes;
  }

  addTarget(input: TargetInput): TargetOptions {
    const luns =
      input.luns instanceof Map
        ? new Map(input.luns)
        : new Map(Object.entries(input.luns).map(([lun, disk]) => [Number(lun), disk] as const));
    const target: TargetOptions = { ...input, luns };
    this.targets.set(target.name, target);
    return target;
  }

  nextTsih(): number {
    this.#lastTsih = (this.#lastTsih % 0xffff) + 1;
    return this.#lastTsih;
  }

  /** Bytes for a challenge. Without a random source they are merely all different. */
  challenge(length: number): Buffer {
    if (this.randomBytes) return this.randomBytes(length);
    this.#fallbackCount += 1;
    return createHash('sha512')
      .update(`challenge ${this.#fallbackCount}`)
      .digest()
      .subarray(0, length);
  }

  later(delayMs: number, action: () => void): () => void {
    invariant(this.clock, 'a delay needs a clock');
    return this.clock.at(this.clock.nowMs() + delayMs, action);
  }

  portalsOf(target: TargetOptions, peer: Peer): readonly PortalOptions[] {
    const portalGroupTag = target.portalGroupTag ?? 1;
    return target.portals ?? [{ address: peer.localAddress, port: peer.localPort, portalGroupTag }];
  }

  /** Tag of the portal group a connection came in by. */
  portalGroupTag(target: TargetOptions, peer: Peer): number {
    const portal = target.portals?.find(
      (one) => one.address === peer.localAddress && one.port === peer.localPort,
    );
    return portal?.portalGroupTag ?? target.portalGroupTag ?? 1;
  }

  /** By identity, as in RFC 7143 §6.3.5 (Session Reinstatement, Closure, and Timeout). */
  findSession(identity: {
    readonly initiatorName: string;
    readonly isid: Buffer;
    readonly target: TargetOptions | null;
    readonly portalGroupTag: number;
  }): TargetSession | undefined {
    for (const session of this.sessions) {
      if (
        session.initiatorName === identity.initiatorName &&
        session.isid.equals(identity.isid) &&
        session.target?.name === identity.target?.name &&
        session.portalGroupTag === identity.portalGroupTag
      ) {
        return session;
      }
    }
    return undefined;
  }

  addSession(session: TargetSession): void {
    this.sessions.add(session);
    this.stats.currentSessions = this.sessions.size;
    if (session.target === null) return;
    this.#known.add(nexusOf(session));
    const pending = this.#pendingOf.get(nexusOf(session));
    this.#pendingOf.delete(nexusOf(session));
    for (const [lun, disk] of session.target.luns) {
      session.see(lun, disk);
      for (const attention of pending?.get(lun) ?? []) session.raise(lun, attention, disk);
    }
    if (!this.#attentionDue(session)) return;
    for (const [lun, disk] of session.target.luns) session.raise(lun, POWER_ON, disk);
  }

  #attentionDue(session: TargetSession): boolean {
    if (this.powerOnAttention === 'every-login') return true;
    if (this.powerOnAttention === 'never' || !this.#restarted) return false;
    const nexus = nexusOf(session);
    if (this.#seenSinceRestart.has(nexus)) return false;
    this.#seenSinceRestart.add(nexus);
    return true;
  }

  /** An attention for every nexus that has no session now; it hears of it in its next one. */
  raiseForAbsent(targetName: string, lun: number, attention: UnitAttention): void {
    const present = new Set([...this.sessions].map(nexusOf));
    for (const nexus of this.#known) {
      if (!nexus.endsWith(` ${targetName}`) || present.has(nexus)) continue;
      const pending = new Map(this.#pendingOf.get(nexus) ?? []);
      this.#pendingOf.set(nexus, pending.set(lun, [...(pending.get(lun) ?? []), attention]));
    }
  }

  /** Ends a session with all its tasks; connections still open are dropped. */
  endSession(session: TargetSession): void {
    if (session.ended) return;
    session.ended = true;
    if (session.pendingAttentions.size > 0) {
      this.#pendingOf.set(nexusOf(session), session.pendingAttentions);
    }
    this.stats.tasksKilled += session.endTasks();
    this.sessions.delete(session);
    this.stats.currentSessions = this.sessions.size;
    for (const connection of [...session.connections.values()]) connection.drop();
    session.connections.clear();
  }

  markRestarted(): void {
    this.#restarted = true;
    this.#seenSinceRestart = new Set();
    this.#pendingOf.clear();
  }
}

/** The I_T nexus of a session, but for the portal group. */
function nexusOf({ initiatorName, isid, target }: TargetSession): string {
  return `${initiatorName} ${isid.toString('hex')} ${target?.name}`;
}
