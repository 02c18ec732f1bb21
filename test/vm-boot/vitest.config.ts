import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

/** Machines that start from a LUN of this one. The limits are those of an emulated processor. */
// biome-ignore lint/style/noDefaultExport: vitest takes the default export.
export default defineConfig({
  root: resolve(import.meta.dirname, '../..'),
  test: {
    include: ['test/vm-boot/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 1_800_000,
    hookTimeout: 900_000,
    teardownTimeout: 30_000,
  },
});
