import type { CliIo } from './context.js';

/** What takes no longer needs no words. */
const SILENT_MS = 1000;
const REDRAW_MS = 1000;
/** Back to the beginning of the line, and clear it (ECMA-48, EL). */
const CLEAR_LINE = '\r\u001b[K';

/**
 * Tells a person at a terminal what is waited for and how long already, once it takes over a
 * second, and removes the words again. Programs and files get nothing.
 */
export async function withProgress<T>(
  io: CliIo,
  what: string | (() => string),
  work: Promise<T>,
): Promise<T> {
  if (io.stderr.isTTY !== true) return work;
  const startedAtMs = performance.now();
  let isShown = false;
  const timer = setInterval(() => {
    const elapsedMs = performance.now() - startedAtMs;
    if (elapsedMs < SILENT_MS) return;
    isShown = true;
    const words = typeof what === 'string' ? what : what();
    io.stderr.write(`${CLEAR_LINE}${words} … ${Math.floor(elapsedMs / 1000)} s`);
  }, REDRAW_MS);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    if (isShown) io.stderr.write(CLEAR_LINE);
  }
}
