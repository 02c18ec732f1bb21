import { defineConfig } from 'vitest/config';

/** What runs on any machine; test/vm and its like need a VM, test/chroot needs root. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/vm*/**', 'test/chroot/**', 'node_modules/**'],
    pool: 'forks',
    testTimeout: 20_000,
    hookTimeout: 60_000,
  },
});
