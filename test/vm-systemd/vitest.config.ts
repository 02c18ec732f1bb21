import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

/** Tests that boot systemd in a virtual machine (see machine.ts); they need root, and no KVM. */
// biome-ignore lint/style/noDefaultExport: vitest takes the default export.
export default defineConfig({
  root: resolve(import.meta.dirname, '../..'),
  test: {
    include: ['test/vm-systemd/**/*.test.ts'],
    pool: 'forks',
    fileParallelism: false,
    testTimeout: 600_000,
    hookTimeout: 600_000,
    teardownTimeout: 30_000,
  },
});
