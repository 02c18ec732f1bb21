import { expect } from 'vitest';
import { Seeded } from './seeded.js';

/**
 * Runs a story for seeds 1 to `seeds`, each with random numbers of its own, and tells which of them
 * ended badly: the story returns what went wrong, or null.
 */
export async function eachSeed(
  seeds: number,
  story: (random: Seeded, seed: number) => Promise<string | null>,
): Promise<void> {
  const wrong: string[] = [];
  for (let seed = 1; seed <= seeds; seed += 1) {
    const said = await story(new Seeded(seed), seed);
    if (said !== null) wrong.push(`seed ${seed}: ${said}`);
  }
  expect(wrong.join('\n'), `${wrong.length} of ${seeds} seeds`).toBe('');
}
