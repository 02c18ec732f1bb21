import type { ModelClient } from './model-client.js';
import type { Seeded } from './seeded.js';
import type { StormUnit } from './storm-unit.js';
import type { World } from './world.js';

export type StormReport = {
  readonly seed: number;
  readonly faults: readonly string[];
  readonly requests: number;
  readonly errors: number;
  readonly outages: number;
  readonly virtualSeconds: number;
  readonly story: readonly string[];
};

/** One request of a client to the cells it has for itself until it is known how it ended. */
export type Job = {
  readonly command: number;
  readonly cells: readonly number[];
  readonly value: number;
  readonly fua: boolean;
  readonly mark: number;
  readonly losses: number;
  readonly client: ModelClient;
  /** It has been answered, or its client is gone. */
  isOver: boolean;
};

/**
 * What a storm is about: `weather` harms everything there is; `neighbours` harms every LUN but the
 * first, which must not notice.
 */
export type Theme = 'weather' | 'neighbours';

/** What a fault needs of the storm it happens in. */
export interface StormScene {
  readonly world: World;
  readonly random: Seeded;
  readonly theme: Theme;
  readonly units: readonly StormUnit[];
  /** Good weather has come: no fault any more. */
  readonly isCalm: boolean;
  /** A process that knows nothing is being started: what it finds is what it serves. */
  readonly isStarting: boolean;
  tell(words: string): void;
  /** A unit that may be harmed. */
  victim(): StormUnit;
  /** Ends a fault after a while, unless good weather has ended it already. */
  undo(afterMs: number, action: () => void): void;
  /** The storm does not end before a fault that takes longer. */
  lastUntil(atMs: number): void;
  latencyChanged(latencyMs: number): void;
  /** The client goes now; another one comes and uses the cells of what it left unanswered. */
  replace(unit: StormUnit, client: ModelClient): void;
  /** The process is killed and another one takes its place. */
  replaceProcess(how: 'takesOver' | 'startsAnew'): void;
}

/** One thing that can go wrong. */
export type Strike = {
  readonly name: string;
  /** How often, compared to the others. */
  readonly weight: number;
  /** Themes in which it may happen. */
  readonly themes: readonly Theme[];
  readonly strike: (scene: StormScene) => void;
};

export const WEATHER: readonly Theme[] = ['weather'];
export const ALL_THEMES: readonly Theme[] = ['weather', 'neighbours'];
