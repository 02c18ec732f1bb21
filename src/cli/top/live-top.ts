import { emitKeypressEvents } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReadStream } from 'node:tty';
import { askDaemon, type ControlClient } from '../../control/control-client.js';
import { statisticsListSchema } from '../../control/control-results.js';
import { allowsColor, type CliIo } from '../context.js';
import { allSessions } from '../control-session.js';
import { whenAborted } from '../interrupts.js';
import { columnsOf } from '../table-width.js';
import { drawTop, type Screen } from './draw-top.js';
import { keyPressed } from './top-keys.js';
import { INITIAL_TOP, isInOutage, sampleReceived, type TopState } from './top-state.js';

/** The other screen, so that the terminal has its old text again afterwards (xterm); no cursor. */
const ENTER_SCREEN = '\u001b[?1049h\u001b[?25l';
const LEAVE_SCREEN = '\u001b[?25h\u001b[?1049l';
/** Cursor home; clear to the end of the line, and of the screen (ECMA-48, CUP, EL and ED). */
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_REST = '\u001b[J';
/** A terminal that does not report its size has that of a VT100. */
const USUAL_COLUMNS = 80;
const USUAL_ROWS = 24;

/** A terminal that can draw. */
export function isLiveTerminal({ stdout, environment }: CliIo): boolean {
  return stdout.isTTY === true && environment['TERM'] !== 'dumb';
}

/** Draws all sessions until `ended`, or until the operator quits. */
export async function showLive(
  io: CliIo,
  {
    client,
    ended,
    intervalMs,
  }: {
    readonly client: ControlClient;
    readonly ended: Promise<void>;
    readonly intervalMs: number;
  },
): Promise<void> {
  let state: TopState = INITIAL_TOP;
  const quit = new AbortController();
  const draw = () => io.stdout.write(frame(drawTop(state, screenOf(io))));
  const become = (next: TopState) => {
    state = next;
    if (state.hasEnded) quit.abort();
    else draw();
  };
  const read = async () => {
    while (!quit.signal.aborted) {
      const { statistics } = await askDaemon(client, statisticsListSchema, 'SessionStatistics');
      const sessions = statistics.some(isInOutage) ? await allSessions(client) : [];
      if (!quit.signal.aborted) become(sampleReceived(state, statistics, sessions));
      await sleep(intervalMs, undefined, { signal: quit.signal }).catch(() => undefined);
    }
  };
  io.stdout.write(ENTER_SCREEN);
  io.stdout.on('resize', draw);
  const stopKeys = onKeys(io, (key) => become(keyPressed(state, key)));
  try {
    await Promise.race([read(), ended, whenAborted(quit.signal)]);
  } finally {
    quit.abort();
    stopKeys();
    io.stdout.off('resize', draw);
    io.stdout.write(LEAVE_SCREEN);
  }
}

function frame(lines: readonly string[]): string {
  const body = lines.map((line) => `${line}${CLEAR_LINE}`).join('\r\n');
  return `${HOME}${body}${CLEAR_REST}`;
}

function screenOf(io: CliIo): Screen {
  const columns = columnsOf(io) ?? USUAL_COLUMNS;
  return {
    columns,
    rows: io.stdout.rows || USUAL_ROWS,
    hasColor: allowsColor(io),
  };
}

/** Calls back for each key, if standard input is a terminal; returns how to stop that. */
function onKeys({ stdin }: CliIo, pressed: (key: string) => void): () => void {
  if (!(stdin instanceof ReadStream)) return () => undefined;
  const listener = (text: string | undefined, key: { name?: string; ctrl?: boolean }) => {
    const name = key.name ?? text ?? '';
    pressed(key.ctrl === true ? `ctrl-${name}` : name);
  };
  emitKeypressEvents(stdin);
  // Without this, keys come with the next Enter, and are echoed. Ctrl-C is then a key as well.
  stdin.setRawMode(true);
  stdin.on('keypress', listener);
  stdin.resume();
  return () => {
    stdin.off('keypress', listener);
    stdin.setRawMode(false);
    stdin.pause();
  };
}
