import { type Clock, pause } from '../base/clock.js';
import { LinkError, productError, ScsiError } from '../base/errors.js';
import { identityMismatch, identityNotRead } from '../bridge/disk-identity.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import { completedFacts } from '../scsi/completed-facts.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import { senseOfCodes } from '../scsi/sense.js';
import type { Attention } from '../scsi/sense-table.js';
import { ScsiStatus } from '../scsi/status.js';
import { verdictOfSense } from '../scsi/verdict.js';
import { clearAttentions, readBlockCount, readFacts, type ScsiExecutor } from './disk-probe.js';

/**
 * Attentions after which the LUN may be another disk, or one with other facts. A reset brings mode
 * pages back to what was saved: the write cache and write protection may be others.
 */
const PROBE_AGAIN: ReadonlySet<Attention> = new Set<Attention>([
  'powerOn',
  'reset',
  'mediumChanged',
  'inquiryChanged',
  'lunsChanged',
  'lunGone',
  'mediumGone',
  'factsStale',
  'capacityChanged',
  'modeChanged',
]);
/** The disk cannot serve: it is probed until it can, and its facts are what they were. */
const NOT_READY: ReadonlySet<Attention> = new Set<Attention>([
  'becomingReady',
  'accessTransition',
  'portStandby',
  'portUnavailable',
  'notReady',
]);
/** Those after which another disk may be at the LUN; a disk without a name is not identified. */
const EXCHANGED: ReadonlySet<Attention> = new Set<Attention>([
  'mediumChanged',
  'mediumGone',
  'inquiryChanged',
  'lunsChanged',
  'lunGone',
]);
/** Those that say that the disk is not there. */
const ABSENT: ReadonlySet<Attention> = new Set<Attention>(['lunGone', 'mediumGone']);
/** A disk that changes under every probe is probed again later. */
const TRIES_MAX = 4;
/** What a question meets has been reported by the session already, to this LUN among others. */
const REPORTED_ELSEWHERE = () => undefined;

export type Finding =
  /** `attentions` is their number when the facts were read: a later one makes them stale. */
  | { readonly is: 'same'; readonly facts: DiskFacts; readonly attentions: number }
  | { readonly is: 'other' | 'none'; readonly why: string }
  | { readonly is: 'changing' };

export type LunProbeOptions = {
  readonly unit: LogicalUnit;
  /** A disk without identity is identified by its make and size. */
  readonly allowUnidentified: boolean;
  /** One command over the session as it is now; `onSent` is called when it leaves. */
  readonly execute: (request: ScsiRequest, onSent: () => void) => Promise<ScsiAnswer>;
  readonly clock: Clock;
};

/** Asks what is at a LUN now, and knows whether the answers still count. */
export class LunProbe {
  /** Attentions of the LUN so far after which the facts have to be read again. */
  attentions = 0;
  /** The session was lost since the LUN last served. */
  isAfterLoss = false;
  /** A question is still in the queue: the target has not been asked. */
  #isUnsent = false;
  readonly #options: LunProbeOptions;
  readonly #asker: ScsiExecutor;
  #mayHaveMissedPowerOn = false;
  /** Another disk may have come since the LUN was known to be the same. */
  #mayBeExchanged = false;
  /** The LUN was found to be absent, or another disk, since it was known to be the same. */
  #wasGone = false;
  /** It has said since it last served that it cannot: it is away, whatever else it answers. */
  #isAway = false;

  /**
   * `onSent` is called for each command of `find` when it leaves for the target; `onAnswer` when a
   * disk has done it which neither was lost nor has said that it is away since it last served.
   */
  constructor(options: LunProbeOptions, onSent: () => void, onAnswer: () => void) {
    this.#options = options;
    this.#asker = {
      execute: async (request) => {
        this.#isUnsent = true;
        const answer = await options.execute(request, () => {
          this.#isUnsent = false;
          onSent();
        });
        if (answer.status === ScsiStatus.good && !this.isAfterLoss && !this.#isAway) onAnswer();
        return answer;
      },
      pause: (ms) => pause(options.clock, ms),
    };
  }

  /** The session continues, and neighbours keep the question from being sent. */
  get isKeptFromAsking(): boolean {
    return this.#isUnsent && !this.isAfterLoss;
  }

  sessionLost(): void {
    this.isAfterLoss = true;
    this.#mayBeExchanged = true;
  }

  /** True when the LUN has to be probed; what a probe has found so far is out of date then. */
  unitAttention(attention: Attention): boolean {
    if (NOT_READY.has(attention) || ABSENT.has(attention)) this.#isAway = true;
    if (NOT_READY.has(attention)) return true;
    if (!PROBE_AGAIN.has(attention)) return false;
    this.attentions += 1;
    if (EXCHANGED.has(attention)) this.#mayBeExchanged = true;
    if (ABSENT.has(attention)) this.#wasGone = true;
    return true;
  }

  /** It is the same disk, and is to be exported again: what the outage was is over. */
  outageOver(): void {
    this.isAfterLoss = false;
  }

  /** The LUN serves again: it is the same disk. */
  admitted(): void {
    this.isAfterLoss = false;
    this.#isAway = false;
    this.#mayBeExchanged = false;
  }

  /** No caller waits for the queued question. */
  abandoned(): void {
    this.#isUnsent = false;
  }

  /** What is at the LUN now; rejects with LinkError when the session goes meanwhile. */
  async find({ isRemoved }: { readonly isRemoved: boolean }): Promise<Finding> {
    const { unit, allowUnidentified } = this.#options;
    const isAfterLoss = this.isAfterLoss;
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      try {
        this.#askForAttentions(isAfterLoss || isRemoved);
        const ready = await clearAttentions(this.#asker, unit.lun, REPORTED_ELSEWHERE);
        this.#mayHaveMissedPowerOn = false;
        if (ready.action === 'away') {
          const { attention, words } = ready;
          if (attention === null || !NOT_READY.has(attention)) this.#diskIsGone();
          return { is: 'none', why: words };
        }
        // An attention that is reported before the facts are read does not make them stale.
        const { attentions } = this;
        const found = await readFacts(this.#asker, unit.lun, REPORTED_ELSEWHERE);
        if (attentions !== this.attentions) continue;
        const occasion = { mayBeExchanged: this.#mayBeExchanged, allowUnidentified };
        const unknown = identityNotRead(unit.facts, found, occasion);
        if (unknown !== null) return { is: 'none', why: unknown };
        const facts = completedFacts(found, unit.facts);
        const why = identityMismatch(unit.facts, facts, occasion);
        if (why !== null) {
          this.#diskIsGone();
          return { is: 'other', why };
        }
        this.#diskIsThere();
        return { is: 'same', facts, attentions };
      } catch (error) {
        const { message } = productError(error);
        if (error instanceof LinkError) throw error;
        if (!isDiskThere(error)) this.#diskIsGone();
        // The target has answered: with the link up nothing has been missed.
        if (!isAfterLoss) this.#mayHaveMissedPowerOn = false;
        return { is: 'none', why: message };
      }
    }
    return { is: 'changing' };
  }

  /** Blocks the disk has now; null if it does not report them. */
  blockCount(): Promise<number | null> {
    const { unit, execute } = this.#options;
    const { pause } = this.#asker;
    const asker: ScsiExecutor = { execute: (request) => execute(request, () => undefined), pause };
    return readBlockCount(asker, unit.lun, REPORTED_ELSEWHERE);
  }

  #diskIsGone(): void {
    this.#mayBeExchanged = true;
    this.#wasGone = true;
  }

  /**
   * A disk that loses its power while it is not at the LUN has no initiator to report that to, and
   * a target may make a LUN anew without a unit attention (tgt does). So loss has to be assumed.
   */
  #diskIsThere(): void {
    if (this.#wasGone) this.#options.unit.disk.cache.mayBeLost();
    this.#wasGone = false;
  }

  /**
   * A unit attention is reported once. If the link went before the answer to the first probe after
   * a login, that may have been the one about the power: loss has to be assumed, so that none is
   * silent. The same holds for a removed disk, which gets no other commands. A probe of a disk that
   * serves is one command among many, and nothing follows from its loss.
   */
  #askForAttentions(isOnlyCommand: boolean): void {
    if (this.#mayHaveMissedPowerOn) this.#options.unit.disk.cache.mayBeLost();
    this.#mayHaveMissedPowerOn = isOnlyCommand;
  }
}

/** A disk has failed the command, and not an absent LUN. */
function isDiskThere(error: unknown): boolean {
  if (!(error instanceof ScsiError)) return false;
  const { attention } = verdictOfSense(senseOfCodes(error));
  return attention === null || !EXCHANGED.has(attention);
}
