import type { ProductEvent } from '../../config/contract.js';
import { eventSchema } from '../../control/control-results.js';
import { type Arguments, type CommandBody, type CommandContext, isGiven } from '../context.js';
import { watchDaemon, withControl } from '../control-session.js';
import { eventText } from '../event-text.js';
import { printable, printLine } from '../print.js';

export const EVENTS: CommandBody = { build: withControl, run: runEvents };

/** `events`: what happens, as it happens, until SIGINT. */
async function runEvents(context: CommandContext, args: Arguments): Promise<number> {
  const json = isGiven(args, 'json');
  return watchDaemon(context, args, async (client, ended) => {
    client.onEvent = (event) => printLine(context.io, json ? JSON.stringify(event) : lineOf(event));
    await client.call('SubscribeEvents');
    await ended;
  });
}

/** A kind of event that a newer daemon has and we do not know is shown as it came. */
function lineOf(event: unknown): string {
  if (!eventSchema.safeParse(event).success) return printable(JSON.stringify(event));
  const known = event as ProductEvent;
  return `${known.time} ${eventText(known)}`;
}
