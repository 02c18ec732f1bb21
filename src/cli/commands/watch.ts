import { setTimeout as sleep } from 'node:timers/promises';
import type { Argv } from 'yargs';
import { UsageError } from '../../base/errors.js';
import type { ProductEvent } from '../../config/contract.js';
import { askDaemon, type ControlClient } from '../../control/control-client.js';
import { eventSchema, statisticsListSchema } from '../../control/control-results.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import type { StatisticsView } from '../../supervisor/session-report.js';
import { type Arguments, type CommandContext, isGiven, textArgument } from '../context.js';
import { controlPathOf, withControl } from '../control-session.js';
import { eventText } from '../event-text.js';
import { Interrupts, whenAborted } from '../interrupts.js';
import { lunTroubles } from '../lun-text.js';
import { drawPaths, perSecond, secondsSince } from '../path-rates.js';
import { humanBytes, printable, printLine, printTable } from '../print.js';
import { columnsOf, fitted } from '../table-width.js';

/** A terminal of fewer columns is spared the median. */
const NARROW_COLUMNS = 100;
const INTERVAL_SECONDS_MAX = 3600;
/** Cursor home, and clear from there (ECMA-48, CUP and ED). */
const REDRAW = '\u001b[H\u001b[J';
/** The other screen, so that what stood in the terminal is there again afterwards (xterm). */
const ENTER_SCREEN = '\u001b[?1049h\u001b[?25l';
const LEAVE_SCREEN = '\u001b[?25h\u001b[?1049l';

export function withTop(parser: Argv): Argv {
  return withControl(parser)
    .option('interval', {
      type: 'string',
      requiresArg: true,
      default: '1',
      describe: 'seconds between two looks',
    })
    .option('count', { type: 'string', requiresArg: true, describe: 'looks, then the end' });
}

/** `events`: what happens, as it happens, until SIGINT. */
export async function runEvents(context: CommandContext, args: Arguments): Promise<number> {
  const json = isGiven(args, 'json');
  return watching(context, args, async (client, ended) => {
    client.onEvent = (event) => printLine(context.io, json ? JSON.stringify(event) : lineOf(event));
    await client.call('SubscribeEvents');
    await ended;
  });
}

/** `top`: throughput, latency and outages of every session, drawn again and again. */
export async function runTop(context: CommandContext, args: Arguments): Promise<number> {
  const intervalMs = 1000 * numberOf(args, 'interval', { min: 0.1, max: INTERVAL_SECONDS_MAX });
  const isEndless = textArgument(args, 'count') === undefined;
  const count = isEndless ? Infinity : numberOf(args, 'count', { min: 1, max: 1_000_000 });
  const { io } = context;
  const isLive = io.stdout.isTTY === true && !isGiven(args, 'json');
  return watching(context, args, async (client, ended) => {
    let before: readonly StatisticsView[] = [];
    let isOver = false;
    const over = ended.finally(() => {
      isOver = true;
    });
    if (isLive) io.stdout.write(ENTER_SCREEN);
    try {
      for (let look = 1; look <= count && !isOver; look += 1) {
        const { statistics } = await askDaemon(client, statisticsListSchema, 'SessionStatistics');
        if (isGiven(args, 'json')) printLine(io, JSON.stringify({ statistics }));
        else {
          if (isLive) io.stdout.write(REDRAW);
          draw(context, statistics, before);
        }
        before = statistics;
        if (look < count) await Promise.race([sleep(intervalMs), over]);
      }
    } finally {
      if (isLive) io.stdout.write(LEAVE_SCREEN);
    }
  });
}

/** A kind of event that a newer daemon has and we do not know is shown as it came. */
function lineOf(event: unknown): string {
  if (!eventSchema.safeParse(event).success) return printable(JSON.stringify(event));
  const known = event as ProductEvent;
  return `${known.time} ${eventText(known)}`;
}

function draw(
  context: CommandContext,
  now: readonly StatisticsView[],
  before: readonly StatisticsView[],
): void {
  const columns = columnsOf(context.io);
  const isNarrow = columns !== undefined && columns < NARROW_COLUMNS;
  const headings = [
    ...['SESSION', 'STATE', 'IN/s', 'OUT/s', 'IOPS', ...(isNarrow ? [] : ['P50']), 'P99'],
    ...['QD', 'HELD', ...(isNarrow ? [] : ['UNFLUSHED']), 'TARGET'],
  ];
  const rows = now.map((view) => {
    const last = before.find((other) => other.UniqueSessionId === view.UniqueSessionId);
    const rate = (field: 'BytesReceived' | 'BytesSent' | 'PDUResponsesReceived') =>
      perSecond(view[field], last?.[field], secondsSince(last, view));
    const { removalInSeconds } = view;
    // A LUN that is away alone has a line of its own below.
    const isAway = removalInSeconds !== null && view.state !== 'loggedIn';
    const state = isAway ? `away, ${Math.round(removalInSeconds)} s` : view.state;
    return [
      view.UniqueSessionId.slice(0, 8),
      state,
      humanBytes(rate('BytesReceived')),
      humanBytes(rate('BytesSent')),
      String(rate('PDUResponsesReceived')),
      ...(isNarrow ? [] : [milliseconds(view.p50Ms)]),
      milliseconds(view.p99Ms),
      String(view.commandsInFlight + view.commandsWaiting),
      String(view.heldRequests),
      ...(isNarrow ? [] : [humanBytes(view.luns.reduce((sum, lun) => sum + lun.retainedBytes, 0))]),
      view.TargetiSCSIName,
    ];
  });
  printTable(context.io, headings, fitted(headings, rows, columns));
  for (const view of now) {
    for (const trouble of lunTroubles(view.luns)) {
      printLine(context.io, printable(`${view.UniqueSessionId.slice(0, 8)} ${trouble}`));
    }
  }
  if (rows.length === 0) printLine(context.io, 'no session');
  const troubles = now.reduce((sum, view) => sum + lunTroubles(view.luns).length, 0);
  const left = (context.io.stdout.rows ?? Infinity) - Math.max(1, rows.length) - troubles - 2;
  drawPaths(context.io, { now, before, linesMax: left });
}

/** Runs `work` until it is done, a signal comes (status 0), or the daemon goes (18). */
async function watching(
  context: CommandContext,
  args: Arguments,
  work: (client: ControlClient, ended: Promise<void>) => Promise<void>,
): Promise<number> {
  const { ControlClient: Client } = await import('../../control/control-client.js');
  using client = await Client.connect(controlPathOf(context, args));
  using interrupts = new Interrupts(context.io.signals);
  const gone = new Promise<never>((_resolve, reject) => {
    client.onClosed = reject;
  });
  gone.catch(() => undefined);
  const ended = Promise.race([whenAborted(interrupts.signal), gone]);
  ended.catch(() => undefined);
  await Promise.race([work(client, ended), ended]);
  return EXIT_CODES.ok.code;
}

function milliseconds(value: number): string {
  if (value < 1) return `${Math.round(value * 1000)} µs`;
  return value < 1000 ? `${value.toFixed(1)} ms` : `${(value / 1000).toFixed(1)} s`;
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
