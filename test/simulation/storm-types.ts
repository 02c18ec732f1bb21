import type { ModelClient } from './model-client.js';

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
  answered: boolean;
};
