import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../../base/errors.js';
import { type CheckReport, checkSchema } from '../../check/check-report.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import { printCheck } from '../check-view.js';
import { type Arguments, type CommandBody, type CommandContext, isGiven } from '../context.js';
import { Interrupts } from '../interrupts.js';
import { printJson } from '../print.js';
import { withProgress } from '../progress.js';
import { prepareTarget } from '../session-flags.js';
import { withUrl } from './query.js';

/** A person who has asked for the end does not wait longer for an orderly one. */
const LOGOUT_MS_MAX = 500;

export const CHECK: CommandBody = { build: withUrl, run: runCheck };

/** `check <url>`: everything a person wants to know of a target before the first disk of it. */
async function runCheck(context: CommandContext, args: Arguments): Promise<number> {
  const { io, backend } = context;
  const { url, options } = await prepareTarget(context, args, 'informational');
  using interrupts = new Interrupts(io.signals);
  const { signal } = interrupts;
  let step = '';
  const onStep = (what: string) => {
    step = what;
  };
  const checking = backend.check(url, options, { signal, onStep });
  const asked = interrupts.orStopped(checking);
  const report = await withProgress(io, () => step, asked).catch(async (error: unknown) => {
    const ended = checking.catch(() => undefined);
    if (signal.aborted) await Promise.race([ended, sleep(LOGOUT_MS_MAX)]);
    throw error;
  });
  const found = checkSchema.parse(report);
  if (isGiven(args, 'json')) printJson(io, found);
  else printCheck(io, found);
  return exitOf(found);
}

/** A LUN that cannot be used is named in the report; without any that can, the command fails. */
function exitOf({ luns }: CheckReport): number {
  if (luns.some(({ disk }) => disk !== null)) return EXIT_CODES.ok.code;
  const [bad] = luns.flatMap(({ error }) => (error === null ? [] : [error]));
  if (bad === undefined) {
    throw new UsageError(
      'The target has no disk for this initiator. Map one to it at the target.',
      {
        code: 'ERR_NOTHING_FOUND',
        exitCode: EXIT_CODES.nothingFound.code,
      },
    );
  }
  throw new UsageError(`No LUN can be used: ${bad}.`, { exitCode: EXIT_CODES.error.code });
}
