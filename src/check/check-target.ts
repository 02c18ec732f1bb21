import { productError } from '../base/errors.js';
import type { LunFields } from '../bridge/lun-fields.js';
import type { CheckHooks, SessionOptions, TargetUrl } from '../config/contract.js';
import { formatHostPort, wantedLuns } from '../config/target-url.js';
import { nextStepOf } from '../iscsi/quirks/quirks.js';
import type { ScsiExecutor } from '../lun/disk-probe.js';
import { reportLuns } from '../lun/report-luns.js';
import { discoverPortals } from '../session/discovery-session.js';
import { inTime, openClient } from '../session/informational-session.js';
import type { SessionClient } from '../session/session-client.js';
import { adviceFor } from './advice.js';
import type { CheckReport } from './check-report.js';
import { checkHost } from './host-check.js';
import { type CheckedLun, checkLun } from './lun-check.js';
import { measureReads, medianOf } from './read-speed.js';

const PINGS = 10;
const PING_BYTES = 32;
/** LUN to ask where neither the user nor the target names one. */
const LUN_DEFAULT = 0;
/** A target that does not answer what is only nice to know is not waited for. */
const SIDE_QUESTION_SECONDS = 3;
/** Disks whose speed is measured: a second each. */
const MEASURED_MAX = 8;

/**
 * Finds out what a target is and does, without a write: logins, questions and reads. Rejects with
 * the errors of a login; a LUN that cannot be used is a part of the report.
 */
export async function checkTarget(
  url: TargetUrl,
  options: SessionOptions,
  hooks: CheckHooks,
): Promise<CheckReport> {
  const { signal } = hooks;
  const onStep = (what: string) => hooks.onStep(what);
  onStep(`logging in at ${formatHostPort(url)}`);
  const handle = await openClient(url, options, signal);
  const logOut = () => void handle.logout();
  signal.addEventListener('abort', logOut, { once: true });
  try {
    const asker = executorOf(handle);
    onStep('measuring the round trip');
    const roundTrip = await measureRoundTrip(handle);
    const host = await checkHost(handle.initiator.linkAddresses()?.local.host ?? null);
    const luns: CheckedLun[] = [];
    for (const lun of await lunsOf(asker, url, options)) {
      onStep(`asking LUN ${lun} what it is`);
      luns.push(await checkLun(asker, lun));
    }
    const measured = await withSpeed(asker, luns, onStep);
    const login = loginOf(handle, options);
    const target = targetOf(handle, url);
    const quirks = handle.session.quirks.all.map((row) => ({
      ...row,
      nextStep: nextStepOf(row.quirk),
    }));
    onStep('finding out which other features the target offers');
    const digestsAccepted = await digestsOf(url, { ...options, ...OFFER_DIGESTS }, signal);
    const portals = await portalsOf(url, options, signal);
    const found = {
      target: { ...target, portals },
      login: { ...login, digestsAccepted },
      ...{ quirks, roundTrip, luns: measured, host },
    };
    return { ...found, advice: adviceFor(found, options) };
  } finally {
    signal.removeEventListener('abort', logOut);
    await handle.logout();
  }
}

const OFFER_DIGESTS = {
  headerDigest: ['CRC32C', 'None'],
  dataDigest: ['CRC32C', 'None'],
} as const;

function executorOf(handle: SessionClient): ScsiExecutor & { readonly lunFields: LunFields } {
  return {
    lunFields: handle.lunFields,
    execute: (request) => inTime(handle, handle.execute(request)),
    pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };
}

async function lunsOf(
  asker: ScsiExecutor,
  url: TargetUrl,
  options: SessionOptions,
): Promise<readonly number[]> {
  const wanted = wantedLuns(url, options);
  const luns = wanted ?? [LUN_DEFAULT];
  const reported = await reportLuns(asker, { luns, onWarning: () => undefined });
  return wanted ?? reported;
}

async function measureRoundTrip(handle: SessionClient): Promise<CheckReport['roundTrip']> {
  const timesMs: number[] = [];
  for (let index = 0; index < PINGS; index += 1) {
    timesMs.push(await inTime(handle, handle.ping(PING_BYTES)));
  }
  const rounded = timesMs.map((ms) => Math.round(ms * 1000) / 1000);
  return {
    count: PINGS,
    minMs: Math.min(...rounded),
    medianMs: medianOf(rounded),
    maxMs: Math.max(...rounded),
  };
}

async function withSpeed(
  asker: ScsiExecutor,
  luns: readonly CheckedLun[],
  onStep: (what: string) => void,
): Promise<CheckReport['luns']> {
  const views: CheckReport['luns'] = [];
  let measured = 0;
  for (const { view, facts } of luns) {
    if (view.disk === null || facts === null || measured === MEASURED_MAX) {
      views.push(view);
      continue;
    }
    measured += 1;
    onStep(`reading from LUN ${view.lun}`);
    const speed = await measureReads(asker, view.lun, facts);
    views.push({ ...view, disk: { ...view.disk, ...speed } });
  }
  return views;
}

function targetOf(handle: SessionClient, url: TargetUrl): Omit<CheckReport['target'], 'portals'> {
  const { remote } = handle;
  const { portal, connection } = handle.session;
  return {
    name: url.targetName,
    alias: connection?.parameters?.targetAlias ?? null,
    portal: formatHostPort(portal ?? url),
    address: remote === null ? null : formatHostPort(remote),
    portalGroupTag: connection?.parameters?.targetPortalGroupTag ?? null,
  };
}

function loginOf(
  handle: SessionClient,
  options: SessionOptions,
): Omit<CheckReport['login'], 'digestsAccepted'> {
  const { keys } = handle.session;
  const inForce = (key: string) => keys.find((row) => row.key === key)?.inForce;
  const digest = (key: string) => (inForce(key) === 'CRC32C' ? 'CRC32C' : 'None');
  const isMutual = options.chap?.target !== undefined;
  const usesChap = inForce('AuthMethod') === 'CHAP';
  return {
    authentication: usesChap ? (isMutual ? 'mutual CHAP' : 'CHAP') : 'none',
    headerDigest: digest('HeaderDigest'),
    dataDigest: digest('DataDigest'),
    keys: keys.map((row) => ({ ...row })),
  };
}

/** A login that offers digests shows whether the target agrees to them. */
async function digestsOf(
  url: TargetUrl,
  options: SessionOptions,
  signal: AbortSignal,
): Promise<CheckReport['login']['digestsAccepted']> {
  try {
    const handle = await openClient(url, options, signal);
    const parameters = handle.session.connection?.parameters;
    await handle.logout();
    if (parameters === undefined || parameters === null) return null;
    const { headerDigest, dataDigest } = parameters;
    return { header: headerDigest === 'CRC32C', data: dataDigest === 'CRC32C' };
  } catch (error) {
    if (signal.aborted) throw error;
    productError(error);
    return null;
  }
}

/** Where a discovery at this portal says that the target listens. */
async function portalsOf(
  url: TargetUrl,
  options: SessionOptions,
  signal: AbortSignal,
): Promise<string[] | null> {
  const quick = { ...options, taskTimeoutSeconds: SIDE_QUESTION_SECONDS };
  try {
    const { host, port, targetName } = url;
    const found = await discoverPortals({ portal: { host, port }, targetName }, quick, signal);
    return found?.map(formatHostPort) ?? null;
  } catch (error) {
    if (signal.aborted) throw error;
    productError(error);
    return null;
  }
}
