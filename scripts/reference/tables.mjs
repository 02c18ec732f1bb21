import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The exports of the sources that the pages are made of. */
const ENTRY = `
export { z } from 'zod';
export {
  environmentNameOf, flagOf, OPTION_NAMES, OPTION_ROWS,
} from './src/config/config-options.js';
export { openIscsiNamesOf } from './src/config/open-iscsi-options.js';
export { METHOD_PARAMS, UNSUPPORTED_PARAMS } from './src/control/control-methods.js';
export { CONTROL_PATH, LINE_BYTES_MAX, PROTOCOL_VERSION, RpcCode } from
  './src/control/control-protocol.js';
export * from './src/control/control-results.js';
export { metricsRegistry } from './src/daemon/metrics.js';
export { EXIT_CODES } from './src/errors/exit-codes.js';
export { appliesOf } from './src/supervisor/live-options.js';
export { pathSchema } from './src/supervisor/path-report.js';
export { deviceSchema, sessionSchema, statisticsSchema } from './src/supervisor/session-report.js';
`;

/** `require` for what npm packages in the bundle still load in that way. */
const BANNER = `import { createRequire as requireOf } from 'node:module';
const require = requireOf(${JSON.stringify(join(ROOT, 'package.json'))});`;

/**
 * @typedef {typeof import('../../src/config/config-options.js') &
 *   typeof import('../../src/config/open-iscsi-options.js') &
 *   typeof import('../../src/control/control-methods.js') &
 *   typeof import('../../src/control/control-protocol.js') &
 *   typeof import('../../src/control/control-results.js') &
 *   typeof import('../../src/daemon/metrics.js') &
 *   typeof import('../../src/errors/exit-codes.js') &
 *   typeof import('../../src/supervisor/live-options.js') &
 *   typeof import('../../src/supervisor/path-report.js') &
 *   typeof import('../../src/supervisor/session-report.js') &
 *   Pick<typeof import('zod'), 'z'>} Tables
 */

/**
 * Bundles the sources and imports them, so that no compiled program has to be there.
 * @returns {Promise<Tables>}
 */
export async function loadTables() {
  const { outputFiles } = await build({
    stdin: { contents: ENTRY, resolveDir: ROOT, loader: 'ts' },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'node',
    logLevel: 'error',
    banner: { js: BANNER },
    // The bundle loads the addon from the folder of the sources, not from its own.
    define: {
      'import.meta.url': JSON.stringify(pathToFileURL(join(ROOT, 'src/io/native.ts')).href),
    },
  });
  const folder = mkdtempSync(join(tmpdir(), 'iscsi-nbd-tables-'));
  try {
    const path = join(folder, 'tables.mjs');
    writeFileSync(path, outputFiles[0]?.contents ?? '');
    return await import(pathToFileURL(path).href);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
