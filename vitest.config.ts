import { defineConfig } from 'vitest/config';

/** What runs on any machine; test/vm and its like have configurations of their own and need a VM. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/vm*/**', 'node_modules/**'],
    pool: 'forks',
    testTimeout: 20_000,
    hookTimeout: 60_000,
  },
});
