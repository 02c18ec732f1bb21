#!/usr/bin/env -S node --max-semi-space-size=1 --v8-pool-size=1
// The flags save 18 MB: the heap of new objects may grow to 16 MiB otherwise, and stays so large.
import { isMainThread } from 'node:worker_threads';
import { codeOf, errnoOf } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import { readVersion } from './version.js';

/** A reader that goes away, as `head` does, is not an error: the rest is dropped. */
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error) => {
    if (errnoOf(error) === 'EPIPE') return;
    // A full disk, say: a result that is not written must not look like a success.
    if (stream === process.stdout) {
      process.stderr.write(`iscsi-nbd: Standard output cannot be written (${codeOf(error)}).\n`);
    }
    process.exit(EXIT_CODES.error.code);
  });
}

/** Without a listener Node opens a debugger on a TCP port at this signal, to any local user. */
process.on('SIGUSR1', () => undefined);

const io = {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  environment: process.env,
  signals: process,
};

if (isMainThread) {
  const exitCode = await run(process.argv.slice(2));
  await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
  process.exit(exitCode);
} else {
  // A daemon with workers runs this program in each of them.
  const { runWorker } = await import('../workers/worker-thread.js');
  await runWorker();
}

/** The version needs nothing else of the program: packages and scripts ask for it often. */
async function run(words: readonly string[]): Promise<number> {
  if (words.length === 1 && words[0] === '--version') {
    process.stdout.write(`${readVersion()}\n`);
    return EXIT_CODES.ok.code;
  }
  const [{ runCli }, { lazyBackend }] = await Promise.all([
    import('./program.js'),
    import('./backend.js'),
  ]);
  return runCli(words, io, lazyBackend);
}

/** Resolves when all that was written to a pipe or terminal has left the process. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || stream.errored) resolve();
    else stream.write('', () => resolve());
  });
}
