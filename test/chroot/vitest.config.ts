import { defineConfig } from 'vitest/config';

/** scripts/test-parts/packages runs these: as root, one system after the other. */
// biome-ignore lint/style/noDefaultExport: vitest takes the default export.
export default defineConfig({
  test: {
    include: ['test/chroot/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 600_000,
  },
});
