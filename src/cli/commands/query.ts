import { setTimeout as sleep } from 'node:timers/promises';
import type { Argv } from 'yargs';
import { ScsiError, UsageError } from '../../base/errors.js';
import type { InformationalSession, SessionOptions, TargetUrl } from '../../config/contract.js';
import { formatHostPort, formatTargetUrl } from '../../config/target-url.js';
import { EXIT_CODES } from '../../errors/exit-codes.js';
import {
  type Answer,
  describeLun,
  type LunView,
  parseVpdPage,
  queryCapacity,
  queryInquiry,
  queryReportLuns,
} from '../../session/scsi-queries.js';
import {
  type Arguments,
  type CommandBody,
  type CommandContext,
  isGiven,
  textArgument,
} from '../context.js';
import { Interrupts, whenAborted } from '../interrupts.js';
import { humanBytes, printable, printFields, printJson, printLine, warn } from '../print.js';
import { printTable } from '../print-table.js';
import { withProgress } from '../progress.js';
import { preparePortal, prepareTarget, withSessionFlags } from '../session-flags.js';

/** The LUN a question is about where the URL names none: every target has it. */
const LUN_DEFAULT = 0;
/** A person who has asked for the end does not wait longer for an orderly one. */
const LOGOUT_MS_MAX = 500;
/** Warnings of one session that are shown. */
const WARNINGS_MAX = 32;
/** SPC-4 §6.6.2: qualifier 011b and type 1Fh, if no logical unit has of this number. */
const NO_UNIT = 0x7f;

export const DISCOVER: CommandBody = { build: withPortal, run: runDiscover };
export const LUNS: CommandBody = { build: withRawUrl, run: runLuns };
export const INQUIRY: CommandBody = { build: withInquiry, run: runInquiry };
export const CAPACITY: CommandBody = { build: withRawUrl, run: runCapacity };

function withPortal(parser: Argv): Argv {
  return withSessionFlags(
    withJson(parser).positional('portal', {
      type: 'string',
      demandOption: true,
      describe: 'host[:port] of the target, IPv6 in brackets',
    }),
  );
}

export function withUrl(parser: Argv): Argv {
  return withOptionalUrl(parser).demandOption('url');
}

export function withOptionalUrl(parser: Argv): Argv {
  return withSessionFlags(
    withJson(parser).positional('url', {
      type: 'string',
      describe: 'iscsi://[user@]host[:port]/<target-name>[/<lun>]',
    }),
  );
}

function withRawUrl(parser: Argv): Argv {
  return withUrl(parser).option('raw', {
    type: 'boolean',
    describe: "write the device's own bytes to standard output",
    conflicts: 'json',
  });
}

function withInquiry(parser: Argv): Argv {
  return withRawUrl(parser).option('vpd', {
    type: 'string',
    requiresArg: true,
    describe: 'a VPD page: hexadecimal, e.g. 83, or a name, e.g. limits',
  });
}

function withJson(parser: Argv): Argv {
  return parser.option('json', { type: 'boolean', describe: 'print JSON' });
}

/** `discover <portal>`: a table of targets and portals. */
async function runDiscover(context: CommandContext, args: Arguments): Promise<number> {
  const { portal, options } = await preparePortal(context, args);
  using interrupts = new Interrupts(context.io.signals);
  const { host, port } = portal;
  const warnings: string[] = [];
  const asking = interrupts.orInterrupted(
    context.backend.discover({ host, port }, options, interrupts.signal, (message) =>
      warnings.push(message),
    ),
  );
  const targets = await withProgress(context.io, `asking ${formatHostPort(portal)}`, asking);
  for (const message of warnings) warn(context.io, printable(message));
  if (isGiven(args, 'json')) {
    const view = targets.map((target) => ({
      name: target.name,
      portals: target.portals.map((entry) => ({
        address: entry.host,
        port: entry.port,
        portalGroupTag: entry.portalGroupTag ?? null,
      })),
    }));
    printJson(context.io, view);
  } else if (targets.length > 0) {
    const rows = targets.flatMap((target) =>
      target.portals.map((entry) => [
        target.name,
        formatHostPort(entry),
        String(entry.portalGroupTag ?? '-'),
        formatTargetUrl({ ...entry, targetName: target.name, lun: null }),
      ]),
    );
    printTable(context.io, ['TARGET', 'PORTAL', 'GROUP', 'URL'], rows);
  }
  if (targets.length > 0) return EXIT_CODES.ok.code;
  const what = warnings.length > 0 ? 'no target that can be used' : 'no target';
  const see = warnings.length > 0 ? 'See the warnings, and check' : 'Check';
  throw nothingFound(
    `The portal ${formatHostPort(portal)} shows ${what} to ${options.initiatorName}. ` +
      `${see} the target's access list.`,
  );
}

/** `inquiry <url>`: standard data, or a VPD page. */
async function runInquiry(context: CommandContext, args: Arguments): Promise<number> {
  const pageText = textArgument(args, 'vpd');
  const page = pageText === undefined ? null : parseVpdPage(pageText);
  return printAnswer(context, args, async (session, lun) => {
    const answer = await queryInquiry(session, lun, page).catch((error: unknown) => {
      throw isInvalidField(error) && page !== null ? noSuchPage(lun, page) : error;
    });
    if (answer.raw[0] === NO_UNIT && !isGiven(args, 'raw')) throw noSuchLun(lun);
    return answer;
  });
}

/** `capacity <url>`. */
async function runCapacity(context: CommandContext, args: Arguments): Promise<number> {
  return printAnswer(context, args, queryCapacity, (view) => ({
    ...view,
    sizeBytes: `${view.sizeBytes} (${humanBytes(view.sizeBytes)})`,
  }));
}

/** `luns <url>`: each LUN with what it is and its size. */
async function runLuns(context: CommandContext, args: Arguments): Promise<number> {
  const { io } = context;
  const { url, options } = await prepareTarget(context, args, 'informational');
  const luns = await withSession(context, { url, options }, async (session) => {
    const { raw, view } = await queryReportLuns(session);
    if (isGiven(args, 'raw')) {
      io.stdout.write(raw);
      return null;
    }
    const views = async () => {
      const described: LunView[] = [];
      for (const field of view) described.push(await describeLun(session, field));
      return described;
    };
    return withProgress(io, 'waiting for the LUNs', views());
  });
  if (luns === null) return EXIT_CODES.ok.code;
  if (isGiven(args, 'json')) printJson(io, luns);
  else if (luns.length > 0) {
    const rows = luns.map((lun) => [
      String(lun.lun),
      lun.type,
      lun.vendor,
      lun.product,
      lun.sizeBytes === undefined ? (lun.error ?? '-') : humanBytes(lun.sizeBytes),
    ]);
    printTable(io, ['LUN', 'TYPE', 'VENDOR', 'PRODUCT', 'SIZE'], rows);
  }
  if (luns.length > 0) return EXIT_CODES.ok.code;
  throw nothingFound('The target shows no LUN to this initiator. Map one to it at the target.');
}

/** Opens an informational session for `work`, which the first signal ends, and closes it. */
export async function withSession<T>(
  context: CommandContext,
  subject: { readonly url: TargetUrl; readonly options: SessionOptions },
  work: (session: InformationalSession, interrupts: Interrupts) => Promise<T>,
): Promise<T> {
  using interrupts = new Interrupts(context.io.signals);
  const warnings = new Set<string>();
  const opening = context.backend.openInformational(
    subject.url,
    subject.options,
    interrupts.signal,
    (message) => {
      if (warnings.size < WARNINGS_MAX) warnings.add(message);
    },
  );
  const where = formatHostPort(subject.url);
  let session: InformationalSession | null = null;
  try {
    const asking = interrupts.orInterrupted(opening);
    session = await withProgress(context.io, `logging in at ${where}`, asking);
    return await interrupts.orStopped(work(session, interrupts));
  } finally {
    for (const message of warnings) warn(context.io, printable(message));
    if (session !== null) await leave(session, interrupts);
  }
}

/** The first error is the one to tell; a link that is gone cannot be closed in order. */
async function leave(session: InformationalSession, interrupts: Interrupts): Promise<void> {
  const closing = session.close().catch(() => undefined);
  const leaveAtOnce = whenAborted(interrupts.signal).then(() => sleep(LOGOUT_MS_MAX));
  await interrupts.orInterrupted(Promise.race([closing, leaveAtOnce])).catch(() => undefined);
}

async function printAnswer<View extends object>(
  context: CommandContext,
  args: Arguments,
  query: (session: InformationalSession, lun: number) => Promise<Answer<View>>,
  forPeople: (view: View) => object = (view) => view,
): Promise<number> {
  const { io } = context;
  const subject = await prepareTarget(context, args, 'informational');
  const lun = subject.url.lun ?? LUN_DEFAULT;
  context.place = { ...context.place, lun };
  const { raw, view } = await withSession(context, subject, (session) =>
    withProgress(io, `waiting for LUN ${lun}`, query(session, lun)),
  );
  if (isGiven(args, 'raw')) io.stdout.write(raw);
  else if (isGiven(args, 'json')) printJson(io, view);
  else {
    printLine(io, printable(formatTargetUrl({ ...subject.url, lun })));
    printFields(io, { ...forPeople(view) });
  }
  return EXIT_CODES.ok.code;
}

/** INVALID FIELD IN CDB (SPC-4 §6.6.1: the answer where a page is not there). */
function isInvalidField(error: unknown): boolean {
  return error instanceof ScsiError && error.senseKey === 0x05 && error.asc === 0x24;
}

function noSuchPage(lun: number, page: number): UsageError {
  const digits = page.toString(16).padStart(2, '0').toUpperCase();
  return nothingFound(
    `LUN ${lun} has no VPD page ${digits}h. \`--vpd supported\` shows which it has.`,
  );
}

function noSuchLun(lun: number): UsageError {
  return nothingFound(
    `The target has no LUN ${lun} for this initiator. \`iscsi-nbd luns\` lists those there are.`,
  );
}

function nothingFound(message: string): UsageError {
  return new UsageError(message, {
    code: 'ERR_NOTHING_FOUND',
    exitCode: EXIT_CODES.nothingFound.code,
  });
}
