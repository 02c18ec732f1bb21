import { UsageError } from '../base/errors.js';
import type {
  AttachOptions,
  OpenSession,
  SessionHooks,
  SessionOptions,
  TargetUrl,
} from '../config/contract.js';
import { wantedLuns } from '../config/target-url.js';
import { protectFromOomKiller } from '../io/oom-protection.js';
import { DeviceExporter, nbdAddon } from '../lun/device-exporter.js';
import { applyProcessSettings } from '../lun/process-settings.js';
import { openRetainedStore, retainedDirectoryOf } from '../lun/retained-store.js';
import { SessionRetained } from '../lun/session-retained.js';
import { stampedEvent } from '../session/stamped-event.js';
import { AttachedSession } from './attached-session.js';
import { DaemonSession } from './daemon-session.js';
import type { SessionPlan } from './daemon-session-options.js';
import { OwnedRecord } from './owned-record.js';
import { isHandedOver } from './record-identity.js';
import type { ExportPlan } from './session-exports.js';

export type AttachPlan = {
  readonly exportPlan: ExportPlan;
  /** Absent: that of the environment. */
  readonly stateDirectory?: string;
  /** Where retained writes outlive this process; absent: nowhere, null: there is no place. */
  readonly retainedDirectory?: string | null;
  /** What did not work before there was a session. */
  readonly warnings: readonly string[];
};

/**
 * Makes the URL's LUN, or every disk of the target, a kernel device. Devices that a process before
 * this one left, because it was killed or told to, are taken back first, under the same session;
 * the target may then still be away. Rejects with UsageError 15 when a living process has them.
 */
export async function attach(
  url: TargetUrl,
  options: AttachOptions,
  hooks: SessionHooks,
): Promise<OpenSession> {
  await DeviceExporter.requireSupport();
  await applyProcessSettings(options);
  const warnings = await protectFromOomKiller(nbdAddon);
  const retainedDirectory = retainedDirectoryOf(process.env);
  const plan = { exportPlan: { kind: 'devices' }, retainedDirectory, warnings } as const;
  return attachBy(plan, url, options, hooks);
}

/** `attach`: one session as the daemon has many, with a record of its own and no control socket. */
export async function attachBy(
  plan: AttachPlan,
  url: TargetUrl,
  options: AttachOptions,
  hooks: SessionHooks,
): Promise<OpenSession> {
  const luns = wantedLuns(url, options);
  if (options.boot && luns?.length !== 1) {
    throw new UsageError('A Boot session has one LUN: add it to the URL, …/<lun>.');
  }
  const login = loginOf(url, options);
  const { targetName, sessionType, portal } = login.request;
  const { initiatorName } = options;
  const warn = (message: string, sessionId: string) =>
    hooks.onEvent(stampedEvent({ event: 'warning', message }, sessionId));
  const owned = await OwnedRecord.open(
    { initiatorName, targetName, sessionType, portal, luns: luns === null ? null : [...luns] },
    { stateDirectory: plan.stateDirectory, onWarning: warn },
  );
  for (const message of plan.warnings) warn(message, owned.record.sessionId);
  const { luns: _luns, ...others } = options;
  const sessionOptions = luns === null ? others : { ...others, luns };
  const retained = await retainedOf(owned, plan, (message) =>
    warn(message, owned.record.sessionId),
  );
  const session = await owned.makeSession(() =>
    sessionOf(owned, { login, plan, options: sessionOptions, hooks, retained }),
  );
  const over = session.ended.then((end) => {
    retained?.end({ isOver: end === 'loggedOut' });
    const { hasGhosts } = session;
    return owned.end(session.record, { isLoggedOut: !hasGhosts, wasOpen: session.hasOpened });
  });
  try {
    await session.open();
  } catch (error) {
    await over;
    throw error;
  }
  // The system runs from a boot disk: a signal to this process is not meant to end that.
  const keepDevices = options.keepDevices === true || options.boot;
  return new AttachedSession({ session, over, keepDevices });
}

function loginOf(url: TargetUrl, options: AttachOptions): SessionPlan {
  const { targetName, host, port } = url;
  const sessionType = options.boot ? 'boot' : 'data';
  const portal = { host, port };
  const request = { targetName, portal, sessionType, persistent: false, options: {} } as const;
  return { initiatorName: options.initiatorName, request };
}

async function retainedOf(
  { record }: OwnedRecord,
  { retainedDirectory, exportPlan }: AttachPlan,
  onWarning: (message: string) => void,
): Promise<SessionRetained | undefined> {
  if (retainedDirectory === undefined) return undefined;
  const store = await openRetainedStore({ directory: retainedDirectory, onWarning });
  const isDevice = exportPlan.kind === 'devices';
  return SessionRetained.make(store, { sessionId: record.sessionId, isDevice });
}

type AttachSetup = {
  readonly login: SessionPlan;
  readonly plan: AttachPlan;
  readonly options: SessionOptions;
  readonly hooks: SessionHooks;
  readonly retained: SessionRetained | undefined;
};

function sessionOf(owned: OwnedRecord, setup: AttachSetup): DaemonSession<SessionPlan> {
  const { record, left, losses, identity } = owned;
  return new DaemonSession<SessionPlan>({
    plan: setup.login,
    options: setup.options,
    identity,
    record,
    exportPlan: setup.plan.exportPlan,
    firstLogin: 'once',
    waiting: record.disks,
    // No client comes back to a device that is removed.
    isLeft: false,
    isClean: (lun) => left !== null && isHandedOver(left, lun),
    keepsIdentity: true,
    mayHaveGhosts: owned.mayHaveGhosts || setup.login.request.sessionType === 'boot',
    onEvent: (event) => setup.hooks.onEvent(event),
    losses,
    retained: setup.retained,
    saveRecord: (changed) => owned.save(changed),
    signal: setup.hooks.signal,
  });
}
