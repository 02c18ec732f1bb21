import { resolve } from 'node:path';
import { refuseTakenPath } from '../io/nbd-socket.js';
import type { PortalAddress } from '../iscsi/portal.js';
import type { SessionType } from '../iscsi/session-config.js';
import type {
  AttachOptions,
  ServeOptions,
  SessionOptions,
  Stack,
  StackHooks,
  TargetUrl,
} from './contract.js';
import { DeviceExporter } from './device-exporter.js';
import { type FoundDisk, findDisks } from './disk-probe.js';
import { IdentityStore } from './identity-store.js';
import { threadRuntime } from './runtime.js';
import { newIdentity } from './session-identity.js';
import { SessionStack } from './session-stack.js';
import { SocketExporter } from './socket-exporter.js';
import { formatTargetUrl } from './target-url.js';

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
  const stack = new SessionStack(threadRuntime(), hooks, {
    type: 'data',
    targetName: url.targetName,
    portals: portalsOf(url, options),
    identity: newIdentity(),
    firstLogin: 'once',
    options,
  });
  return start(stack, url, options, hooks, (disks) => {
    const exporter = new SocketExporter({
      path: options.socketPath,
      resources: stack.resources,
      isSingle: disks.length === 1 && url.lun !== null,
      description: formatTargetUrl(url),
    });
    return { exporter, opened: () => exporter.listen() };
  });
}

/** Makes the URL's LUN, or every disk of the target, a kernel device. */
export async function attach(
  url: TargetUrl,
  options: AttachOptions,
  hooks: StackHooks,
): Promise<Stack> {
  await DeviceExporter.requireSupport();
  const type: SessionType = options.boot ? 'boot' : 'data';
  const store = await IdentityStore.open({
    initiatorName: options.initiatorName,
    targetName: url.targetName,
    luns: wantedLuns(url, options),
  });
  const stack = new SessionStack(threadRuntime(), hooks, {
    type,
    targetName: url.targetName,
    portals: portalsOf(url, options),
    identity: store.identity,
    // A process that was killed left devices behind that wait for this one: it does not give up.
    firstLogin: store.isTakeover ? 'forever' : 'once',
    options,
    onClosed: () => store.release(),
  });
  try {
    return await start(stack, url, options, hooks, async (disks) => {
      await store.checkDisks(disks);
      const exporter = new DeviceExporter({
        resources: stack.resources,
        sessionId: stack.sessionId,
        onLinkLost: (unit, reason) => stack.deviceLinkLost(unit, reason),
      });
      return { exporter, opened: async () => {} };
    });
  } catch (error) {
    await store.release();
    throw error;
  }
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
