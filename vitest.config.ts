import { defineConfig } from 'vitest/config';

const OTHERS = ['test/vm*/**', 'test/chroot/**', 'node_modules/**'];
const MEASURED = 'test/perf/**/*.test.ts';
const COMMON = { pool: 'forks', testTimeout: 20_000, hookTimeout: 60_000 } as const;

/**
 * What runs on any machine; test/vm and its like need a VM, test/chroot needs root. Tests that
 * measure times or memory run after all others, one at a time.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...COMMON,
          name: 'tests',
          include: ['test/**/*.test.ts'],
          exclude: [...OTHERS, MEASURED],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...COMMON,
          name: 'measured',
          include: [MEASURED],
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
