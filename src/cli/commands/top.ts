import { setTimeout as sleep } from 'node:timers/promises';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import { askDaemon } from '../../control/control-client.js';
import { statisticsListSchema } from '../../control/control-results.js';
import type { StatisticsView } from '../../supervisor/session-report.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { watchDaemon, withControl } from '../control-session.js';
import { printLine } from '../print.js';
import { isLiveTerminal, showLive } from '../top/live-top.js';
import { printStatistics } from '../top/plain-table.js';

const INTERVAL_SECONDS_MAX = 3600;

export const TOP: CommandBody = { build: withTop, run: runTop };

function withTop(parser: Argv): Argv {
  return withControl(parser)
    .option('interval', {
      type: 'string',
      requiresArg: true,
      default: '1',
      describe: 'seconds between two readings',
    })
    .option('count', { type: 'string', requiresArg: true, describe: 'plain tables to print' });
}

/**
 * `top`: throughput, latency and outages of every session. A terminal gets a screen that is drawn
 * again and again and takes keys; `--count`, `--json` and a pipe get plain output.
 */
async function runTop(context: CommandContext, args: Arguments): Promise<number> {
  const intervalMs = 1000 * numberOf(args, 'interval', { min: 0.1, max: INTERVAL_SECONDS_MAX });
  const isEndless = textArgument(args, 'count') === undefined;
  const count = isEndless ? Infinity : numberOf(args, 'count', { min: 1, max: 1_000_000 });
  const { io } = context;
  const isLive = isEndless && !isGiven(args, 'json') && isLiveTerminal(io);
  return watchDaemon(context, args, async (client, ended) => {
    if (isLive) return showLive(io, { client, ended, intervalMs });
    let before: readonly StatisticsView[] = [];
    let isOver = false;
    const over = ended.finally(() => {
      isOver = true;
    });
    for (let reading = 1; reading <= count && !isOver; reading += 1) {
      const { statistics } = await askDaemon(client, statisticsListSchema, 'SessionStatistics');
      if (isGiven(args, 'json')) printLine(io, JSON.stringify({ statistics }));
      else printStatistics(io, statistics, before);
      before = statistics;
      if (reading < count) await Promise.race([sleep(intervalMs), over]);
    }
  });
}

function numberOf(
  args: Arguments,
  name: string,
  range: { readonly min: number; readonly max: number },
): number {
  const text = textArgument(args, name) ?? '';
  const value = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (value >= range.min && value <= range.max) return value;
  throw new UsageError(`--${name} must be a number from ${range.min} to ${range.max}.`);
}
