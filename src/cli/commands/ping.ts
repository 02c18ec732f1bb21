import { setTimeout as sleep } from 'node:timers/promises';
import type { Argv } from 'yargs';
import { codeOf, UsageError } from '../../base/errors.js';
import { formatHostPort } from '../../config/target-url.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { INTERRUPTED } from '../interrupts.js';
import { printJson, printLine } from '../print.js';
import { prepareTarget } from '../session-flags.js';
import { withSession, withUrl } from './query.js';

const COUNT_MAX = 1_000_000;
/** Half of what a target takes by default: RFC 7143 §13.12 (MaxRecvDataSegmentLength). */
const BYTES_MAX = 4096;
const INTERVAL_SECONDS_MAX = 3600;

type LatencyStatistics = {
  readonly minMs: number;
  readonly averageMs: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly standardDeviationMs: number;
};

export const PING: CommandBody = { build: withPing, run: runPing };

function withPing(parser: Argv): Argv {
  return withUrl(parser)
    .option('count', {
      type: 'string',
      requiresArg: true,
      default: '5',
      describe: 'round trips',
    })
    .option('interval', {
      type: 'string',
      requiresArg: true,
      default: '1',
      describe: 'seconds between them',
    })
    .option('bytes', {
      type: 'string',
      requiresArg: true,
      default: '32',
      describe: 'bytes of ping data',
    });
}

/** `ping <url>`: NOP-Out round trips. SIGINT ends it early and still prints the statistics. */
async function runPing(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const count = numberFlag(args, 'count', { min: 1, max: COUNT_MAX, whole: true });
  const bytes = numberFlag(args, 'bytes', { min: 0, max: BYTES_MAX, whole: true });
  const interval = numberFlag(args, 'interval', {
    min: 0,
    max: INTERVAL_SECONDS_MAX,
    whole: false,
  });
  const json = isGiven(args, 'json');
  const subject = await prepareTarget(context, args, 'informational');
  const roundTripsMs: number[] = [];
  const measuring = withSession(context, subject, async (session, { signal }) => {
    while (roundTripsMs.length < count && !signal.aborted) {
      const roundTripMs = await session.ping(bytes);
      roundTripsMs.push(roundTripMs);
      if (!json) {
        const from = formatHostPort(subject.url);
        const number = roundTripsMs.length;
        printLine(
          io,
          `${bytes} bytes from ${from}: ping=${number} time=${milliseconds(roundTripMs)}`,
        );
      }
      if (roundTripsMs.length === count) return;
      await sleep(interval * 1000, undefined, { signal }).catch(() => {});
    }
  });
  await measuring.catch((error: unknown) => {
    if (codeOf(error) !== INTERRUPTED || roundTripsMs.length === 0) throw error;
  });
  const statistics = latencyStatistics(roundTripsMs);
  if (json) printJson(io, { count: roundTripsMs.length, bytes, ...statistics, roundTripsMs });
  else {
    const { minMs, averageMs, medianMs, p99Ms, maxMs, standardDeviationMs } = statistics;
    const numbers = [minMs, averageMs, medianMs, p99Ms, maxMs, standardDeviationMs];
    printLine(io, `${roundTripsMs.length} round trips`);
    printLine(io, `min/avg/median/p99/max/mdev = ${numbers.map(milliseconds).join(' / ')}`);
  }
  return EXIT_CODES.ok.code;
}

/** Statistics of at least one latency; percentiles are the nearest rank's. */
function latencyStatistics(latenciesMs: readonly number[]): LatencyStatistics {
  const sorted = [...latenciesMs].sort((left, right) => left - right);
  const count = Math.max(1, sorted.length);
  const averageMs = sorted.reduce((sum, value) => sum + value, 0) / count;
  const variance = sorted.reduce((sum, value) => sum + (value - averageMs) ** 2, 0) / count;
  const rank = (part: number) => sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? 0;
  return {
    minMs: sorted[0] ?? 0,
    averageMs,
    medianMs: rank(0.5),
    p99Ms: rank(0.99),
    maxMs: sorted.at(-1) ?? 0,
    standardDeviationMs: Math.sqrt(variance),
  };
}

function milliseconds(value: number): string {
  return `${value.toFixed(3)} ms`;
}

function numberFlag(
  args: Arguments,
  name: string,
  range: { readonly min: number; readonly max: number; readonly whole: boolean },
): number {
  const text = textArgument(args, name) ?? '';
  const value = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  const { min, max, whole } = range;
  if (value >= min && value <= max && (!whole || Number.isInteger(value))) return value;
  const kind = whole ? 'a whole number' : 'a number';
  throw new UsageError(`--${name} must be ${kind} from ${min} to ${max}, not '${text}'.`);
}
