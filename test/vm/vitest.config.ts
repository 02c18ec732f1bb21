import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

/**
 * What runs as root in the VM of scripts/vm/run, one file at a time: the files share one kernel and
 * its devices. The limits are wide because an emulated processor is some twenty times slower.
 */
// biome-ignore lint/style/noDefaultExport: vitest takes the default export.
export default defineConfig({
  root: resolve(import.meta.dirname, '../..'),
  test: {
    // What takes longer than CI has: scripts/test-parts/soak and fault-matrix.
    include: [process.env['ISCSI_NBD_LONG'] === '1' ? 'test/vm/*-long.ts' : 'test/vm/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    // One process for all files: starting another one takes seconds here.
    isolate: false,
    testTimeout: 600_000,
    hookTimeout: 120_000,
    teardownTimeout: 30_000,
  },
});
