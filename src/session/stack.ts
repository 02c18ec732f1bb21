import { resolve } from 'node:path';
import { ProductError, productError, UsageError } from '../base/errors.js';
import type { LunUnit } from '../bridge/lun-unit.js';
import type {
  AttachOptions,
  ServeOptions,
  SessionOptions,
  Stack,
  StackHooks,
  TargetUrl,
} from '../config/contract.js';
import { formatTargetUrl } from '../config/target-url.js';
import { guardMemory } from '../io/nbd-memory.js';
import { refuseTakenPath } from '../io/nbd-socket.js';
import type { PortalAddress } from '../iscsi/login/portal.js';
import { DeviceExporter, nbdAddon } from '../lun/device-exporter.js';
import { type FoundDisk, findAmong, findDisks, reportLuns } from '../lun/disk-probe.js';
import { unflushed } from '../lun/hand-over.js';
import type { LossRecord } from '../lun/loss-record.js';
import { LunClaims } from '../lun/lun-claims.js';
import { settleProcess } from '../lun/process-settings.js';
import { threadRuntime } from '../lun/runtime.js';
import { SocketExporter, type SocketExporterEnd } from '../lun/socket-exporter.js';
import { AttachedStack } from './attached-stack.js';
import { IdentityStore } from './identity-store.js';
import { newIdentity } from './session-identity.js';
import { SessionStack } from './session-stack.js';
import { SessionWatch } from './session-watch.js';
import { Warnings } from './warnings.js';

/**
 * Serves the URL's LUN, or every disk of the target, on a unix socket. Resolves when the socket
 * is there and ready. Rejects with the errors of the login, with UsageError 21 without the LUN.
 */
export async function serve(
  url: TargetUrl,
  options: ServeOptions,
  hooks: StackHooks,
): Promise<Stack> {
  // Before a login that would be for nothing; `listen` asks again.
  await refuseTakenPath(resolve(options.socketPath));
  await settleProcess(options);
  const place = { targetName: url.targetName, portals: portalsOf(url, options) };
  const warnings = new Warnings();
  const store = await servedIdentity(url, options, (message) => warnings.tell(message));
  const identity = store?.identity ?? newIdentity();
  const stack = new SessionStack(threadRuntime(), hooks, {
    type: 'data',
    ...place,
    identity,
    firstLogin: 'once',
    options,
    claims: new LunClaims({ ...place, identity }, options),
    losses: store?.losses,
    onFirstWrite: (lun) => store?.losses.written(lun),
    onClosed: (how) => store?.release(how),
  });
  warnings.listen((message) => stack.warn(message));
  const known = new Set<LunUnit>();
  return start(stack, url, options, hooks, (disks) => {
    const exporter = new SocketExporter({
      path: options.socketPath,
      resources: stack.resources,
      isSingle: disks.length === 1 && url.lun !== null,
      description: formatTargetUrl(url),
      end: endOf(stack, store?.losses),
    });
    const opened = () => {
      // Clients of the process before come back to this socket, once.
      for (const unit of stack.units.filter((each) => !known.has(each))) {
        known.add(unit);
        const isClean = store?.losses.wasWrittenBefore(unit.lun) !== true;
        // Also where the process before could not write it down itself.
        if (!isClean) store?.losses.written(unit.lun);
        stack.takenOver(unit, { isClean, hadCache: true });
      }
      return exporter.listen();
    };
    return { exporter, opened };
  });
}

/** What was acknowledged is on the disks before the target ends the session. */
function endOf(stack: SessionStack, losses: LossRecord | undefined): SocketExporterEnd {
  return {
    begins: () => losses?.ends(),
    clientsGone: async (units) => {
      const isCached = ({ lun, facts }: LunUnit) =>
        losses?.isWritten(lun) ?? facts.writeCacheEnabled;
      const luns = units.filter(isCached).map(({ lun }) => lun);
      const left = await unflushed(stack, luns, threadRuntime().clock);
      for (const lun of luns) if (!left.includes(lun)) losses?.flushed(lun);
    },
  };
}

/** Null where nothing can be kept; then a process that is killed is followed by a stranger. */
async function servedIdentity(
  url: TargetUrl,
  options: ServeOptions,
  onWarning: (message: string) => void,
): Promise<IdentityStore | null> {
  const { initiatorName } = options;
  const { targetName } = url;
  const socketPath = resolve(options.socketPath);
  try {
    return await IdentityStore.open(
      { initiatorName, targetName, luns: null, socketPath },
      onWarning,
    );
  } catch (error) {
    if (error instanceof ProductError || !(error instanceof Error) || !('code' in error))
      throw error;
    onWarning(
      `the session's identity cannot be kept (${error.message}): if this process is killed, the ` +
        'next one cannot make the target end what this one has left there',
    );
    return null;
  }
}

/**
 * Makes the URL's LUN, or every disk of the target, a kernel device. Devices that a process before
 * this one left, because it was killed or told to, are taken back first, under the same session;
 * the target may then still be away. Rejects with UsageError 15 when a living process has them.
 */
export async function attach(
  url: TargetUrl,
  options: AttachOptions,
  hooks: StackHooks,
): Promise<Stack> {
  await DeviceExporter.requireSupport();
  await settleProcess(options);
  const wanted = wantedLuns(url, options);
  if (options.boot && wanted?.length !== 1) {
    throw new UsageError('A Boot session has one LUN: add it to the URL, …/<lun>.');
  }
  const { targetName } = url;
  const { initiatorName, boot: isBoot } = options;
  const warnings = new Warnings();
  const key = { initiatorName, targetName, luns: wanted, isBoot };
  const store = await IdentityStore.open(key, (message) => warnings.tell(message));
  const watch = new SessionWatch(hooks, store.identity.sessionId);
  warnings.listen((message) => watch.tell({ event: 'warning', message }));
  for (const message of await guardMemory(nbdAddon)) watch.tell({ event: 'warning', message });
  const portals = portalsOf(url, options);
  const { identity } = store;
  const stack = new SessionStack(threadRuntime(), watch, {
    type: options.boot ? 'boot' : 'data',
    targetName,
    portals,
    identity,
    claims: new LunClaims({ targetName, portals, identity }, options),
    firstLogin: store.waiting.length > 0 ? 'resume' : 'once',
    options,
    losses: store.losses,
    onClosed: (how) => store.release(how),
  });
  const exporter = new DeviceExporter({
    resources: stack.resources,
    sessionId: stack.sessionId,
    onLinkLost: (unit, reason) => stack.deviceLinkLost(unit, reason),
    onInUse: (place, holders) => watch.tell({ event: 'deviceInUse', ...place, holders }),
    onWarning: (message) => watch.tell({ event: 'warning', message }),
    keep: (lun, facts) => store.keep(lun, facts, stack.portalGroupTag, stack.lunFields.hexOf(lun)),
    names: { portal: { host: url.host, port: url.port }, targetName },
  });
  try {
    if (store.waiting.length > 0) await resume({ stack, exporter, watch, wanted }, store.waiting);
    else await start(stack, url, options, watch, () => ({ exporter, opened: async () => {} }));
  } catch (error) {
    await store.release();
    throw error;
  }
  // The system runs from a boot disk: whoever ends this process does not mean that.
  const keepDevices = options.keepDevices === true || options.boot;
  return new AttachedStack({ stack, exporter, keepDevices, sessionState: () => watch.state });
}

type Resuming = {
  readonly stack: SessionStack;
  readonly exporter: DeviceExporter;
  readonly watch: SessionWatch;
  readonly wanted: readonly number[] | null;
};

/** Takes the devices back, which hold their requests until the session is there again. */
async function resume(parts: Resuming, waiting: readonly FoundDisk[]): Promise<void> {
  const { stack, exporter, watch, wanted } = parts;
  stack.useExporter(exporter, async () => {});
  try {
    for (const { lun, facts, field } of waiting) await stack.addDisk(lun, facts, field);
    watch.signal.throwIfAborted();
  } catch (error) {
    // They are not ours to take away: somebody's data wait in them.
    exporter.leave();
    await stack.close({ force: true });
    throw error;
  }
  for (const unit of stack.units) stack.takenOver(unit);
  watch.onLoggedIn = () => {
    watch.onLoggedIn = () => undefined;
    addMissing(stack, wanted).catch((error: unknown) => {
      const { message } = productError(error);
      watch.tell({ event: 'warning', message: `other LUNs cannot be attached: ${message}` });
    });
  };
  stack.handle.initiator.start();
}

/** Disks of the session that had no device yet, or are new at the target. */
async function addMissing(stack: SessionStack, wanted: readonly number[] | null): Promise<void> {
  const isThere = (lun: number) => stack.units.some((unit) => unit.lun === lun);
  if (wanted?.every(isThere)) return;
  const missing = (wanted ?? (await reportLuns(stack))).filter((lun) => !isThere(lun));
  const disks = wanted === null ? findAmong(stack, missing) : findDisks(stack, missing);
  for (const { lun, facts } of await disks) await stack.addDisk(lun, facts);
}

type Opening = {
  readonly exporter: SocketExporter | DeviceExporter;
  readonly opened: () => Promise<void>;
};

async function start(
  stack: SessionStack,
  url: TargetUrl,
  options: SessionOptions,
  hooks: StackHooks,
  open: (disks: readonly FoundDisk[]) => Opening | Promise<Opening>,
): Promise<Stack> {
  try {
    await stack.login(hooks.signal);
    const disks = await findDisks(stack, wantedLuns(url, options));
    const opening = await open(disks);
    stack.useExporter(opening.exporter, opening.opened);
    for (const { lun, facts } of disks) await stack.addDisk(lun, facts);
    await opening.opened();
    hooks.signal.throwIfAborted();
    return stack;
  } catch (error) {
    await stack.close({ force: true }).catch(() => undefined);
    throw error;
  }
}

function portalsOf(url: TargetUrl, options: SessionOptions): PortalAddress[] {
  return [{ host: url.host, port: url.port }, ...options.portals];
}

function wantedLuns(url: TargetUrl, options: SessionOptions): readonly number[] | null {
  if (url.lun !== null) return [url.lun];
  return options.luns === undefined || options.luns.length === 0 ? null : options.luns;
}
