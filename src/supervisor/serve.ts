import { resolve } from 'node:path';
import { ProductError } from '../base/errors.js';
import type { LogicalUnit } from '../bridge/logical-unit.js';
import type { OpenSession, ServeOptions, SessionHooks, TargetUrl } from '../config/contract.js';
import { formatTargetUrl, wantedLuns } from '../config/target-url.js';
import { refuseTakenPath } from '../io/nbd-socket.js';
import { requireDisks } from '../lun/find-disks.js';
import { unflushed } from '../lun/hand-over.js';
import { HostClaims } from '../lun/host-claims.js';
import type { LossRecord } from '../lun/loss-record.js';
import { applyProcessSettings } from '../lun/process-settings.js';
import { threadRuntime } from '../lun/runtime.js';
import { SocketExporter, type SocketExporterEnd } from '../lun/socket-exporter.js';
import { BlockSession } from '../session/block-session.js';
import { diskSearch } from '../session/next-portal.js';
import { newIdentity } from '../session/session-identity.js';
import { stampedEvent } from '../session/stamped-event.js';
import { OwnedRecord, type OwnedRecordOptions } from './owned-record.js';
import { portalsOf, recordPaths } from './record-paths.js';

/**
 * Serves the URL's LUN, or every disk of the target, on a unix socket. Resolves when the socket
 * accepts clients. Rejects with the errors of the login, or with UsageError 21 without the LUN.
 */
export async function serve(
  url: TargetUrl,
  options: ServeOptions,
  hooks: SessionHooks,
): Promise<OpenSession> {
  // Before a login that would be for nothing; `listen` asks again.
  await refuseTakenPath(resolve(options.socketPath));
  await applyProcessSettings(options);
  const { targetName, host, port } = url;
  const onWarning = (message: string, sessionId: string) =>
    hooks.onEvent(stampedEvent({ event: 'warning', message }, sessionId));
  const { owned, why } = await servedRecord(url, options, { onWarning });
  const identity = owned?.identity ?? newIdentity();
  if (why !== null) onWarning(why, identity.sessionId);
  const wished = [{ host, port }, ...options.portals];
  let record = owned?.record;
  const { portals, spares } = portalsOf(wished, record?.paths, { isTakenOver: false });
  const place = { targetName, portals };
  const make = () =>
    new BlockSession(threadRuntime(), hooks, {
      type: 'data',
      ...place,
      spares,
      onPaths: async (places) => {
        if (record === undefined) return;
        record = { ...record, paths: recordPaths(places) };
        await owned?.save(record);
      },
      identity,
      firstLogin: 'once',
      options,
      claims: new HostClaims({ ...place, identity }, options),
      losses: owned?.losses,
      mayHaveGhosts: owned?.mayHaveGhosts === true,
      onFirstWrite: (lun) => owned?.losses.written(lun),
      onClosed: async ({ isLoggedOut }) => {
        if (record !== undefined) await owned?.end(record, { isLoggedOut, wasOpen: true });
      },
    });
  const stack = owned === null ? make() : await owned.makeSession(make);
  try {
    await stack.login(hooks.signal);
    const { signal } = hooks;
    await exportOn(stack, url, { options, losses: owned?.losses, signal });
    hooks.signal.throwIfAborted();
    // What a path has sent, only a process that knows of it can fence off.
    if (owned !== null) void stack.pathSources.find(hooks.signal);
    return stack;
  } catch (error) {
    if (hooks.signal.aborted) stack.handle.hurryLogout();
    await stack.close({ force: true }).catch(() => undefined);
    throw error;
  }
}

type Serving = {
  readonly options: ServeOptions;
  readonly losses: LossRecord | undefined;
  readonly signal: AbortSignal;
};

async function exportOn(stack: BlockSession, url: TargetUrl, serving: Serving): Promise<void> {
  const { options, losses, signal } = serving;
  const search = diskSearch(stack, { targetName: url.targetName, options, signal });
  const disks = await requireDisks(stack, wantedLuns(url, options), search);
  const exporter = new SocketExporter({
    path: options.socketPath,
    resources: stack.resources,
    isSingle: disks.length === 1 && url.lun !== null,
    description: formatTargetUrl(url),
    end: endOf(stack, losses),
  });
  const known = new Set<LogicalUnit>();
  const opened = () => {
    // Clients of the process before come back to this socket, once.
    for (const unit of stack.units.filter((each) => !known.has(each))) {
      known.add(unit);
      const isClean = losses?.wasWrittenBefore(unit.lun) !== true;
      // Even if the process before could not write it down itself.
      if (!isClean) losses?.written(unit.lun);
      stack.takenOver(unit, { isClean, hadCache: true });
    }
    return exporter.listen();
  };
  stack.useExporter(exporter, opened);
  for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
  await opened();
}

/** What was acknowledged is on the disks before the target ends the session. */
function endOf(stack: BlockSession, losses: LossRecord | undefined): SocketExporterEnd {
  return {
    begins: () => losses?.ends(),
    clientsGone: async (units) => {
      const isCached = ({ lun, facts }: LogicalUnit) =>
        losses?.isWritten(lun) ?? facts.writeCacheEnabled;
      const luns = units.filter(isCached).map(({ lun }) => lun);
      const left = await unflushed(stack, luns, threadRuntime().clock);
      for (const lun of luns) if (!left.includes(lun)) losses?.flushed(lun);
    },
  };
}

type ServedRecord = { readonly owned: OwnedRecord | null; readonly why: string | null };

/** Null where nothing can be kept; then a process that is killed is followed by a stranger. */
async function servedRecord(
  { targetName, host, port }: TargetUrl,
  { initiatorName, ...options }: ServeOptions,
  how: OwnedRecordOptions,
): Promise<ServedRecord> {
  const portal = { host, port };
  const socketPath = resolve(options.socketPath);
  const subject = { initiatorName, targetName, sessionType: 'data', portal, socketPath } as const;
  try {
    return { owned: await OwnedRecord.open(subject, how), why: null };
  } catch (error) {
    if (!(error instanceof Error) || !isSystems(error)) throw error;
    const why =
      `the session's identity cannot be kept (${error.message}): if this process is killed, the ` +
      'next one cannot make the target end what this one has left there';
    return { owned: null, why };
  }
}

/** The state directory cannot be used. */
function isSystems(error: Error): boolean {
  if (error instanceof ProductError) return error.code === 'ERR_STATE_RECORD';
  return 'code' in error;
}
