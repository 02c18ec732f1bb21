import { type Clock, pause } from '../base/clock.js';
import { LinkError, productError } from '../base/errors.js';
import { whyAnotherDisk } from '../bridge/identity-gate.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import type { ScsiAnswer, ScsiRequest } from '../config/contract.js';
import type { DiskFacts } from '../scsi/disk-facts.js';
import type { Attention } from '../scsi/sense-table.js';
import { type Asker, clearAttentions, readBlockCount, readFacts } from './disk-probe.js';

/**
 * Attentions after which the LUN may be another disk, or one with other facts. A reset brings mode
 * pages back to what was saved: the write cache and write protection may be others.
 */
const LOOK_AGAIN: ReadonlySet<Attention> = new Set<Attention>([
  'powerOn',
  'reset',
  'mediumChanged',
  'inquiryChanged',
  'lunsChanged',
  'lunGone',
  'factsStale',
  'capacityChanged',
  'modeChanged',
]);
/** Those after which another disk may be at the LUN; a disk without a name is not known again. */
const EXCHANGED: ReadonlySet<Attention> = new Set<Attention>([
  'mediumChanged',
  'inquiryChanged',
  'lunsChanged',
]);
/** A disk that changes under every look is looked at again later. */
const LOOKS_MAX = 4;
/** What a question meets has been told by the session already, to this unit among others. */
const TOLD_ELSEWHERE = () => undefined;

export type Finding =
  /** `attentions` is their number when the facts were read: a later one makes them stale. */
  | { readonly is: 'same'; readonly facts: DiskFacts; readonly attentions: number }
  | { readonly is: 'other' | 'absent'; readonly why: string }
  | { readonly is: 'untold' };

export type UnitQuestionsOptions = {
  readonly unit: LunUnit;
  /** A disk without identity is known again by its make and size. */
  readonly allowUnidentified: boolean;
  /** One command over the session as it is now; `onSent` is called when it leaves. */
  readonly execute: (request: ScsiRequest, onSent: () => void) => Promise<ScsiAnswer>;
  readonly clock: Clock;
};

/** Asks one unit what it is now, and knows whether the answers still count. */
export class UnitQuestions {
  /** Attentions of the unit so far after which the facts have to be read again. */
  attentions = 0;
  /** A question is still in the queue: the target has not been asked. */
  isUnsent = false;
  readonly #options: UnitQuestionsOptions;
  readonly #asker: Asker;
  #mayHaveMissedPowerOn = false;
  /** Another disk may have come since the unit was known to be the same. */
  #mayBeExchanged = false;

  /** `onSent` is told of each question of `find` that leaves for the target. */
  constructor(options: UnitQuestionsOptions, onSent: () => void) {
    this.#options = options;
    this.#asker = {
      execute: (request) => {
        this.isUnsent = true;
        return options.execute(request, () => {
          this.isUnsent = false;
          onSent();
        });
      },
      pause: (ms) => pause(options.clock, ms),
    };
  }

  /** True when the unit has to be looked at; what a look has found so far is out of date then. */
  attended(attention: Attention): boolean {
    if (!LOOK_AGAIN.has(attention)) return false;
    this.attentions += 1;
    if (EXCHANGED.has(attention)) this.#mayBeExchanged = true;
    return true;
  }

  /** The unit serves again: it is the same disk. */
  admitted(): void {
    this.#mayBeExchanged = false;
  }

  /** Nobody waits for the question that is in the queue. */
  abandoned(): void {
    this.isUnsent = false;
  }

  /** What is at the LUN now; rejects with LinkError when the session goes meanwhile. */
  async find(how: { readonly isOutage: boolean; readonly isRemoved: boolean }): Promise<Finding> {
    const { unit, allowUnidentified } = this.#options;
    if (how.isOutage) this.#mayBeExchanged = true;
    for (let looks = 0; looks < LOOKS_MAX; looks += 1) {
      try {
        this.#askForAttentions(how.isOutage || how.isRemoved);
        await clearAttentions(this.#asker, unit.lun, TOLD_ELSEWHERE);
        this.#mayHaveMissedPowerOn = false;
        // What is told before the facts are read does not make them stale.
        const { attentions } = this;
        const facts = await readFacts(this.#asker, unit.lun, TOLD_ELSEWHERE);
        if (attentions !== this.attentions) continue;
        const occasion = { mayBeExchanged: this.#mayBeExchanged, allowUnidentified };
        const why = whyAnotherDisk(unit.facts, facts, occasion);
        return why === null ? { is: 'same', facts, attentions } : { is: 'other', why };
      } catch (error) {
        const { message } = productError(error);
        if (error instanceof LinkError) throw error;
        // The target has answered: with the link up nothing has been missed.
        if (!how.isOutage) this.#mayHaveMissedPowerOn = false;
        return { is: 'absent', why: message };
      }
    }
    return { is: 'untold' };
  }

  /** Blocks the unit has now; null where it does not tell. */
  blockCount(): Promise<number | null> {
    const { unit, execute } = this.#options;
    const { pause } = this.#asker;
    const asker: Asker = { execute: (request) => execute(request, () => undefined), pause };
    return readBlockCount(asker, unit.lun, TOLD_ELSEWHERE);
  }

  /**
   * A unit attention is told once. When the link went before the answer to the first look after a
   * login, that may have been the one about the power: loss has to be assumed, so that none is
   * silent. So it is at a removed disk, which has no other commands. A look at a disk that serves
   * is one command among many and tells no more.
   */
  #askForAttentions(isOnlyCommand: boolean): void {
    if (this.#mayHaveMissedPowerOn) this.#options.unit.disk.cacheMayBeLost();
    this.#mayHaveMissedPowerOn = isOnlyCommand;
  }
}
